package import BlockStores
import Bytes

/// Which calls of a faulty store fail: those whose numbers, counted from 1 in the order they come, lie in a range.
package final class FaultPlan: Sendable {
  private struct State {
    var callCount = 0
    var failing: Range<Int> = 0..<0
    var failed: [String] = []
    var lostBlockCount: UInt64 = 0
  }

  private let state = Locked(State())

  package init() {}

  /// Begins to count anew and lets the calls in `failing` fail.
  package func start(failing: Range<Int>) {
    state.withLock {
      $0 = State()
      $0.failing = failing
    }
  }

  /// Lets no further call fail.
  package func stop() { state.withLock { $0.failing = 0..<0 } }

  /// How many calls there were since the start.
  package var callCount: Int { state.withLock { $0.callCount } }

  /// The names of the calls that failed since the start.
  package var failed: [String] { state.withLock { $0.failed } }

  /// How many blocks the calls that failed since the start should have freed.
  package var lostBlockCount: UInt64 { state.withLock { $0.lostBlockCount } }

  /// Counts a call, and throws where it is one that fails.
  ///
  /// - Parameter freeing: how many blocks it frees.
  package func step(_ name: String, freeing blockCount: UInt64 = 0) throws(StoreError) {
    let fails = state.withLock { state in
      state.callCount += 1
      guard state.failing.contains(state.callCount) else { return false }
      state.failed.append(name)
      state.lostBlockCount += blockCount
      return true
    }
    if fails { throw StoreError(.deviceFailed(errno: 5), "injected failure of \(name)") }
  }
}
