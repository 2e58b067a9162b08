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
  /// A socket without a server, as a crash leaves one, is replaced; anything else that is there stays.
  ///
  /// - Parameters:
  ///   - backlog: how many clients may wait to be let in.
  ///   - believed: whose sockets may be there; nil where it does not matter whose.
  /// - Throws: `.inUse` where another server listens there; `.untrusted` where a socket of somebody else is there, who need not
  ///   listen; `.nameTaken` where something else is; `.deviceFailed` where the system refuses.
  package convenience init(at path: String, for purpose: Purpose, backlog: Int32) throws(LacunaError) {
    try self.init(at: path, for: purpose, backlog: backlog, believing: nil)
  }

  init(at path: String, for purpose: Purpose, backlog: Int32, believing believed: Believed?) throws(LacunaError) {
    let filePath = FilePath(path)
    guard let name = filePath.lastComponent?.string, !name.isEmpty else {
      throw LacunaError(.invalidParameter, "'\(path)' is not a valid path for a \(purpose.name)")
    }
    let directoryPath = filePath.removingLastComponent()
    do throws(Obstacle) {
      self.name = name
      let directory = try system { () throws(Errno) in
        try ControlCalls.openDirectory(directoryPath.isEmpty ? "." : directoryPath.string)
      }
      self.directory = directory
      // Also where nothing can be made in the folder, which need not matter.
      _ = try Self.occupant(of: name, in: directory, believed)
      let socket = try system { () throws(Errno) in try ControlCalls.makeSocket() }
      self.socket = socket
      // Through the directory's descriptor, so that its path may be of any length; under another name at first, so that the
      // socket's own may be too, and appears or replaces another in one step.
      let random = String(UInt32.random(in: 0...UInt32.max), radix: 16)
      let temporary = ".lacuna-\(random).sock"
      try system { () throws(Errno) in
        try ControlCalls.setPermissions(socket, to: 0o600)
        try ControlCalls.bind(socket, to: "\(directory.path)/\(temporary)")
      }
      do throws(Obstacle) {
        identity = try system { () throws(Errno) in
          let identity = try ControlCalls.identity(
            of: ControlCalls.openReference("\(directory.path)/\(temporary)", followsLinks: false))
          try ControlCalls.listen(socket, backlog: backlog)
          return identity
        }
        try Self.publish(temporary, as: name, in: directory, believed)
      } catch {
        try? ControlCalls.unlink(temporary, in: directory)
        throw error
      }
    } catch {
      throw error.failure(path, purpose)
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
  private static func publish(
    _ temporary: String, as name: String, in directory: Descriptor, _ believed: Believed?
  ) throws(Obstacle) {
    for _ in 0..<attemptCountMax {
      do throws(Errno) {
        return try ControlCalls.rename(temporary, to: name, in: directory, exchanging: false)
      } catch {
        guard error == .fileExists else { throw .system(error) }
      }
      guard let old = try occupant(of: name, in: directory, believed) else { continue }
      let isReplaced = try system { () throws(Errno) in
        // In one step, and then a look at what came out: another server may have been faster.
        try ControlCalls.rename(temporary, to: name, in: directory, exchanging: true)
        let out = try ControlCalls.identity(
          of: ControlCalls.openReference("\(directory.path)/\(temporary)", followsLinks: false))
        if out == old {
          try? ControlCalls.unlink(temporary, in: directory)
          return true
        }
        try ControlCalls.rename(temporary, to: name, in: directory, exchanging: true)
        return false
      }
      if isReplaced { return }
    }
    throw .server
  }

  /// The socket that has the name and may be replaced: nobody listens on it. Nil where nothing has the name.
  private static func occupant(
    of name: String, in directory: Descriptor, _ believed: Believed?
  ) throws(Obstacle) -> FileIdentity? {
    let reference: Descriptor
    let status: stat
    do throws(Errno) {
      reference = try ControlCalls.openReference("\(directory.path)/\(name)", followsLinks: false)
      status = try ControlCalls.status(of: reference)
    } catch {
      if error == .noSuchFileOrDirectory { return nil }
      throw .system(error)
    }
    let identity = FileIdentity(status)
    guard identity.isSocket else { throw .noSocket(owner: status.st_uid) }
    let peer: Peer?
    do throws(Errno) {
      peer = try self.peer(listeningOn: reference)
    } catch {
      switch error {
      case .connectionRefused:
        if let believed, !believed.includes(status.st_uid) { throw .leftBehind(owner: status.st_uid) }
        return identity
      // Full, or not ours to connect to, which says nothing: it is left alone.
      case .wouldBlock, .permissionDenied: peer = nil
      default: throw .system(error)
      }
    }
    if let believed {
      if let peer, !believed.includes(peer.user) { throw .stranger(peer) }
      if !believed.includes(status.st_uid) { throw .stranger(Peer(user: status.st_uid, process: 0)) }
    }
    throw .server
  }

  /// Who listens on a socket.
  private static func peer(listeningOn reference: Descriptor) throws(Errno) -> Peer {
    let socket = try ControlCalls.makeSocket()
    // Open for as long as its path is used.
    try withExtendedLifetime(reference) { () throws(Errno) in try ControlCalls.connect(socket, to: reference.path) }
    return try Peer(of: socket)
  }
}

/// What is in the way of a socket.
private enum Obstacle: Error {
  case system(Errno)
  /// Another server that listens there.
  case server
  /// One of somebody else's.
  case stranger(Peer)
  /// A socket of somebody else's on which nobody listens.
  case leftBehind(owner: uid_t)
  case noSocket(owner: uid_t)

  func failure(_ path: String, _ purpose: SocketListener.Purpose) -> LacunaError {
    let whatToDo = "have it removed, or say where to listen, with \(purpose.option)"
    return switch self {
    case .server:
      LacunaError(
        .inUse, "another server listens on the \(purpose.name) \(path); give this one another, with \(purpose.option)")
    case .stranger(let peer):
      LacunaError(
        .untrusted,
        "a server of \(peer.text) listens on the \(purpose.name) \(path), which is neither your user, nor root, nor the owner of the store; "
          + whatToDo)
    case .leftBehind(let owner):
      LacunaError(
        .untrusted,
        "the socket \(path) is in the way, and was left by \(User.text(owner)), which is neither your user, nor root, nor the owner of the "
          + "store; \(whatToDo)")
    case .noSocket(let owner):
      LacunaError(
        .nameTaken,
        "\(path) is there and is no socket\(owner == geteuid() ? "" : ", and belongs to \(User.text(owner))"); remove it, or say "
          + "where to listen, with \(purpose.option)")
    case .system(let error):
      LacunaError(.deviceFailed(errno: error.rawValue), "listening on the \(purpose.name) \(path): \(error)")
    }
  }
}

/// Runs system calls, whose errors are in the way of a socket.
private func system<Result>(_ body: () throws(Errno) -> Result) throws(Obstacle) -> Result {
  do { return try body() } catch { throw .system(error) }
}
