internal import Glibc
internal import SystemPackage

/// The name of a control socket in the file system.
public enum ControlSocket {
  /// Where the server of the store at `storePath` listens, unless it was told otherwise: beside the store, whose symbolic
  /// links are followed, with `.sock` behind its name; of a block device see ``StorePlace``.
  public static func path(forStore storePath: String) -> String {
    StorePlace.companion(ofStore: storePath, suffix: ".sock", followsLinks: true)
  }

  /// Connects to the server at `path`.
  static func connect(to path: String) throws(LacunaError) -> Descriptor {
    do throws(Errno) {
      // By a reference, so that the path may be of any length.
      let reference = try ControlCalls.openReference(path, followsLinks: true)
      guard try ControlCalls.identity(of: reference).isSocket else {
        throw .notSocket
      }
      let socket = try ControlCalls.makeSocket()
      let deadline = Instant(millisecondsFromNow: 10_000)
      while true {
        do throws(Errno) {
          try ControlCalls.connect(socket, to: reference.path)
          return socket
        } catch {
          // So many wait already that there is no place in the queue.
          guard error == .wouldBlock, deadline.millisecondsLeft > 0 else { throw error }
          usleep(10_000)
        }
      }
    } catch {
      let what =
        switch error {
        case .noSuchFileOrDirectory: "there is no control socket \(path)"
        case .connectionRefused: "nobody listens on the control socket \(path): its server has died"
        case .wouldBlock: "the server at \(path) takes no more clients"
        case .notSocket: "\(path) is no socket"
        default: "connecting to the control socket \(path): \(error)"
        }
      throw LacunaError(.unreachable, what)
    }
  }
}
