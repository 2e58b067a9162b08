internal import Bytes
internal import SystemPackage

/// A thread that is there for something that must be possible later, when there may be no other thread to have.
package final class WaitingThread: Sendable {
  private let body = Monitor<(@Sendable () -> Void)?>(rank: .storeTable, nil)

  /// Starts it. Not before a fork.
  package init() throws(LacunaError) {
    let body = self.body
    do throws(Errno) {
      try ControlCalls.startThread(stackByteCount: ControlLimits().stackByteCount) { body.wait { $0 }() }
    } catch {
      throw LacunaError(.deviceFailed(errno: error.rawValue), "no thread could be made: \(error)")
    }
  }

  /// Has it run `body`, once.
  package func run(_ body: @escaping @Sendable () -> Void) { self.body.change { $0 = body } }
}
