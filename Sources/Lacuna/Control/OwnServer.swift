internal import CLinux
internal import Glibc
internal import SystemPackage

extension ControlClient {
  /// Connects to the control socket at `path` where this user or root made it and listens there; does not wait for anybody.
  ///
  /// For what happens while somebody types: what a stranger's server says is neither waited for nor believed.
  ///
  /// - Throws: `.unreachable` where it is somebody else's, nobody listens, or the server has no place for one more.
  public convenience init(ownServerAt path: String) throws(LacunaError) {
    self.init(path: path, connected: try ControlSocket.connectToOwn(path))
  }
}

extension ControlSocket {
  fileprivate static func connectToOwn(_ path: String) throws(LacunaError) -> Descriptor {
    do throws(Errno) {
      let reference = try ControlCalls.openReference(path, followsLinks: true)
      guard try ControlCalls.identity(of: reference).isSocket else { throw .notSocket }
      // Before connecting, so that a stranger does not learn of it; and again, since whoever bound a socket need not listen there.
      guard isTrusted(try ControlCalls.owner(of: reference)) else { throw .permissionDenied }
      let socket = try ControlCalls.makeSocket()
      try ControlCalls.connect(socket, to: reference.path)
      guard isTrusted(try ControlCalls.listenerUser(of: socket)) else { throw .permissionDenied }
      return socket
    } catch {
      throw LacunaError(.unreachable, "connecting to the control socket \(path): \(error)")
    }
  }

  private static func isTrusted(_ user: uid_t) -> Bool { user == geteuid() || user == 0 }
}

extension ControlCalls {
  /// The user that a file belongs to. See fstat(2).
  fileprivate static func owner(of descriptor: Descriptor) throws(Errno) -> uid_t {
    var status = stat()
    // Safe: the call fills in `status`.
    guard unsafe fstat(descriptor.number, &status) == 0 else { throw Errno(rawValue: Glibc.errno) }
    return status.st_uid
  }

  /// The user of the process that listens where a socket is connected to. See SO_PEERCRED in unix(7).
  fileprivate static func listenerUser(of socket: Descriptor) throws(Errno) -> uid_t {
    var user = uid_t.max
    // Safe: the call fills in `user`.
    guard unsafe lacuna_peerUser(socket.number, &user) == 0 else { throw Errno(rawValue: Glibc.errno) }
    return user
  }
}
