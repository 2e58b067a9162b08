internal import Glibc
internal import SystemPackage

/// A listening Unix socket with its name: from the moment that it can be connected to until `remove`.
package final class SocketListener: Sendable {
  /// What a socket is for, in messages.
  package struct Purpose: Sendable {
    /// What it is called.
    var name: String
    /// What chooses another path for it.
    var option: String

    package init(name: String, option: String) {
      self.name = name
      self.option = option
    }
  }

  let socket: Descriptor
  private let directory: Descriptor
  private let name: String
  private let identity: FileIdentity

  private static let attemptCountMax = 10

  /// Listens at `path`. The name appears when clients can connect, and is never open to other users.
  ///
  /// A socket without a server, left behind by a crash, is replaced; anything else that is there stays.
  ///
  /// - Parameters:
  ///   - backlog: how many clients may wait to be let in.
  /// - Throws: `.inUse` where another server listens there; `.nameTaken` where something else is there; `.deviceFailed` where
  ///   the system refuses.
  package init(at path: String, for purpose: Purpose, backlog: Int32) throws(LacunaError) {
    let filePath = FilePath(path)
    guard let name = filePath.lastComponent?.string, !name.isEmpty else {
      throw LacunaError(.invalidParameter, "'\(path)' is no path of a \(purpose.name)")
    }
    let directoryPath = filePath.removingLastComponent()
    do throws(Errno) {
      self.name = name
      directory = try ControlCalls.openDirectory(directoryPath.isEmpty ? "." : directoryPath.string)
      socket = try ControlCalls.makeSocket()
      try ControlCalls.setPermissions(socket, to: 0o600)
      // Through the directory's descriptor, so that its path may be of any length; under another name at first, so that the
      // socket's own may be too, and appears or replaces another in one step.
      let random = String(UInt32.random(in: 0...UInt32.max), radix: 16)
      let temporary = ".lacuna-\(random).sock"
      try ControlCalls.bind(socket, to: "\(directory.path)/\(temporary)")
      do throws(Errno) {
        identity = try ControlCalls.identity(
          of: ControlCalls.openReference("\(directory.path)/\(temporary)", followsLinks: false))
        try ControlCalls.listen(socket, backlog: backlog)
        try Self.publish(temporary, as: name, in: directory)
      } catch {
        try? ControlCalls.unlink(temporary, in: directory)
        throw error
      }
    } catch {
      throw Self.failure(error, path, purpose)
    }
  }

  /// The descriptor of the socket, open as long as this object is there.
  package var descriptor: Int32 { socket.number }

  /// Takes the name away, unless it is somebody else's by now.
  package func remove() {
    ControlCalls.shutDown(socket)
    guard let reference = try? ControlCalls.openReference("\(directory.path)/\(name)", followsLinks: false),
      (try? ControlCalls.identity(of: reference)) == identity
    else { return }
    try? ControlCalls.unlink(name, in: directory)
  }

  /// Gives a socket its name, in place of one that nobody listens on.
  private static func publish(_ temporary: String, as name: String, in directory: Descriptor) throws(Errno) {
    for _ in 0..<attemptCountMax {
      do throws(Errno) {
        return try ControlCalls.rename(temporary, to: name, in: directory, exchanging: false)
      } catch {
        guard error == .fileExists else { throw error }
      }
      let old: FileIdentity
      do throws(Errno) {
        let reference = try ControlCalls.openReference("\(directory.path)/\(name)", followsLinks: false)
        old = try ControlCalls.identity(of: reference)
        guard old.isSocket else { throw .notSocket }
        guard try isStale(reference) else { throw .addressInUse }
      } catch {
        if error == .noSuchFileOrDirectory { continue }
        throw error
      }
      // In one step, and then a look at what came out: another server may have been faster.
      try ControlCalls.rename(temporary, to: name, in: directory, exchanging: true)
      let out = try ControlCalls.identity(
        of: ControlCalls.openReference("\(directory.path)/\(temporary)", followsLinks: false))
      if out == old {
        try? ControlCalls.unlink(temporary, in: directory)
        return
      }
      try ControlCalls.rename(temporary, to: name, in: directory, exchanging: true)
    }
    throw .addressInUse
  }

  /// Whether nobody listens on the socket.
  private static func isStale(_ reference: Descriptor) throws(Errno) -> Bool {
    do throws(Errno) {
      try ControlCalls.connect(ControlCalls.makeSocket(), to: reference.path)
      return false
    } catch {
      switch error {
      case .connectionRefused: return true
      // Full, or not ours to connect to, which says nothing: it is left alone.
      case .wouldBlock, .permissionDenied: return false
      default: throw error
      }
    }
  }

  private static func failure(_ error: Errno, _ path: String, _ purpose: Purpose) -> LacunaError {
    switch error {
    case .addressInUse:
      LacunaError(
        .inUse, "another server listens on the \(purpose.name) \(path); give this one another, with \(purpose.option)")
    case .notSocket:
      LacunaError(
        .nameTaken, "\(path) is there and is no socket; remove it, or say where to listen, with \(purpose.option)")
    default:
      LacunaError(.deviceFailed(errno: error.rawValue), "listening on the \(purpose.name) \(path): \(error)")
    }
  }
}
