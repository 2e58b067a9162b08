internal import SystemPackage

extension ControlClient {
  /// Connects to the control socket at `path` where this user or root made it and listens there; does not wait for anybody.
  ///
  /// For what happens while somebody types: what a stranger's server says is neither waited for nor believed.
  ///
  /// - Throws: `.unreachable` where it is somebody else's, nobody listens, or the server has no place for one more.
  package convenience init(ownServerAt path: String) throws(LacunaError) {
    self.init(path: path, connected: try ControlSocket.connectToOwn(path))
  }
}

extension ControlSocket {
  fileprivate static func connectToOwn(_ path: String) throws(LacunaError) -> Descriptor {
    let believed = Believed(owner: nil)
    do throws(Errno) {
      let reference = try ControlCalls.openReference(path, followsLinks: true)
      let status = try ControlCalls.status(of: reference)
      guard FileIdentity(status).isSocket else { throw .notSocket }
      // Before connecting, so that a stranger does not learn of it; and again, since whoever bound a socket need not listen there.
      guard believed.includes(status.st_uid) else { throw .permissionDenied }
      let socket = try ControlCalls.makeSocket()
      // Open for as long as its path is used.
      try withExtendedLifetime(reference) { () throws(Errno) in try ControlCalls.connect(socket, to: reference.path) }
      guard believed.includes(try Peer(of: socket).user) else { throw .permissionDenied }
      return socket
    } catch {
      throw LacunaError(.unreachable, "connecting to the control socket \(path): \(error)")
    }
  }
}
