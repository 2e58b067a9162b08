package import BlockStores
import Bytes
package import Devices

/// Which calls of a faulty store fail: those whose numbers, counted from 1 in the order they come, lie in a range.
package final class FaultPlan: Sendable {
  private struct State {
    var callCount = 0
    var failing: Range<Int> = 0..<0
    var failed: [String] = []
  }

  private let state = Locked(State())

  package init() {}

  /// Begins to count anew and lets the calls in `failing` fail.
  package func start(failing: Range<Int>) {
    state.withLock { $0 = State(failing: failing) }
  }

  /// Lets no further call fail.
  package func stop() { state.withLock { $0.failing = 0..<0 } }

  /// How many calls there were since the start.
  package var callCount: Int { state.withLock { $0.callCount } }

  /// The names of the calls that failed since the start.
  package var failed: [String] { state.withLock { $0.failed } }

  /// Counts a call, and throws where it is one that fails.
  package func step(_ name: String, _ operation: DeviceError.Operation = .write) throws(StoreError) {
    let fails = state.withLock { state in
      state.callCount += 1
      guard state.failing.contains(state.callCount) else { return false }
      state.failed.append(name)
      return true
    }
    if fails { throw StoreError(.device(DeviceError(operation: operation, errno: 5)), "injected failure of \(name)") }
  }
}
