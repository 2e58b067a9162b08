internal import Glibc
internal import SystemPackage

/// The name of a control socket in the file system.
package enum ControlSocket {
  /// Where the server of the store at `storePath` listens, unless it was told otherwise: beside the store, whose symbolic
  /// links are followed, with `.sock` after its name; of a block device see ``StorePlace``.
  package static func path(forStore storePath: String) -> String {
    StorePlace.companion(ofStore: storePath, suffix: ".sock", followsLinks: true)
  }

  /// The same for a store that was found.
  package static func path(for store: FoundFile) -> String { StorePlace.companion(of: store, suffix: ".sock") }

  /// Connects to the server at `path`, and looks who it is; not a byte goes either way before.
  ///
  /// - Parameter store: what it should serve, whose owner is believed as well, and a process that writes to it.
  /// - Throws: `.untrusted` where it is somebody else's; `.unreachable` where nobody lets this process in.
  static func connect(
    to path: String, store: FoundFile? = nil, limits: ControlClientLimits = ControlClientLimits()
  ) throws(LacunaError) -> Descriptor {
    var owner: uid_t?
    let (socket, peer): (Descriptor, Peer)
    do throws(Errno) {
      // By a reference, so that the path may be of any length.
      let reference = try ControlCalls.openReference(path, followsLinks: true)
      let status = try ControlCalls.status(of: reference)
      guard FileIdentity(status).isSocket else { throw .notSocket }
      owner = status.st_uid
      socket = try ControlCalls.makeSocket()
      try connect(socket, to: reference, withinMilliseconds: limits.connectingMillisecondsMax)
      peer = try Peer(of: socket)
    } catch {
      throw failure(error, path, owner)
    }
    if let refusal = refusal(of: peer, path, store) { throw refusal }
    return socket
  }

  /// The process that listens at `path`, whoever that is.
  package static func process(listeningAt path: String) throws -> Int32 {
    let socket = try ControlCalls.makeSocket()
    let reference = try ControlCalls.openReference(path, followsLinks: true)
    // Open for as long as its path is used.
    try withExtendedLifetime(reference) { try ControlCalls.connect(socket, to: reference.path) }
    return try Peer(of: socket).process
  }

  private static func connect(
    _ socket: Descriptor, to reference: Descriptor, withinMilliseconds milliseconds: UInt32
  ) throws(Errno) {
    let deadline = Instant(millisecondsFromNow: milliseconds)
    while true {
      do throws(Errno) {
        // Open for as long as its path is used.
        return try withExtendedLifetime(reference) { () throws(Errno) in
          try ControlCalls.connect(socket, to: reference.path)
        }
      } catch {
        // So many wait already that there is no place in the queue.
        guard error == .wouldBlock, deadline.millisecondsLeft > 0 else { throw error }
        usleep(10_000)
      }
    }
  }

  /// Why a server is not believed; nil where it is.
  private static func refusal(of peer: Peer, _ path: String, _ store: FoundFile?) -> LacunaError? {
    if Believed(owner: store?.owner).includes(peer.user) { return nil }
    if let store, peer.process > 0, LockHolder.hasForWriting(peer.process, store) { return nil }
    return LacunaError(
      .untrusted,
      "a server of \(peer.text) listens on the control socket \(path): that is neither your user, nor root, nor the owner of the store, nor "
        + "has it the store open for writing, so nothing was sent to it; if it should serve the store, run lacuna as its user, else remove "
        + "the socket")
  }

  private static func failure(_ error: Errno, _ path: String, _ owner: uid_t?) -> LacunaError {
    // Whose it is explains why it is not open to this process, or does not answer.
    let whose = owner.flatMap { $0 == geteuid() ? nil : ", which belongs to \(User.text($0))" } ?? ""
    let what =
      switch error {
      case .noSuchFileOrDirectory: "there is no control socket \(path)"
      case .connectionRefused: "no process listens on the control socket \(path): its server has died"
      case .wouldBlock: "the server at \(path)\(whose) takes no more clients"
      case .notSocket: "\(path) is no socket"
      default: "connecting to the control socket \(path)\(whose): \(error)"
      }
    return LacunaError(.unreachable, what)
  }
}
