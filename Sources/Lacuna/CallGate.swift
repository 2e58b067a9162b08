internal import Atomics
internal import Bytes

/// Lets calls in until it is closed, which waits for those that are inside.
///
/// Thread safety: any thread. A call costs two atomic operations and takes no lock. `close` must not be called from inside a call,
/// for whose end it would wait.
final class CallGate: Sendable {
  /// Twice how many calls are inside, and one more once the gate is closed.
  private let state = ManagedAtomic<UInt64>(0)
  /// Set by the last call that leaves a closed gate. It has bytes, since the thread sanitizer mistakes a state without any for the header.
  private let emptied = Monitor(rank: .callGate, false)

  /// Runs `body` as a call.
  ///
  /// - Throws: `.closed` where the gate is closed, without running `body`; else what that throws.
  @inline(__always)
  func enter<Result>(_ body: () throws(LacunaError) -> Result) throws(LacunaError) -> Result {
    guard begin() else { throw Self.closed }
    defer { end() }
    return try body()
  }

  /// Runs `body` as a call, unless the gate is closed: nil then.
  func enterUnlessClosed<Result>(_ body: () throws(LacunaError) -> Result) throws(LacunaError) -> Result? {
    guard begin() else { return nil }
    defer { end() }
    return try body()
  }

  /// Lets no call in any more, and waits until none is inside. What they did is seen by this thread.
  func close() {
    var old = state.load(ordering: .relaxed)
    while old & 1 == 0 {
      let (isExchanged, current) = state.weakCompareExchange(
        expected: old, desired: old | 1, ordering: .acquiringAndReleasing)
      old = isExchanged ? old | 1 : current
    }
    emptied.wait { _ in state.load(ordering: .acquiring) == 1 ? () : nil }
  }

  @inline(__always)
  private func begin() -> Bool {
    // Pairs with the exchange in `close`: a call that finds the gate open is one that `close` waits for.
    if state.loadThenWrappingIncrement(by: 2, ordering: .acquiring) & 1 == 0 { return true }
    end()
    return false
  }

  @inline(__always)
  private func end() {
    // Pairs with the load in `close`.
    if state.wrappingDecrementThenLoad(by: 2, ordering: .acquiringAndReleasing) == 1 { emptied.change { $0 = true } }
  }

  static var closed: LacunaError { LacunaError(.closed, "the store was closed") }
}

/// The gates of one store: its own, and one for each volume that is open, so that clients on different processors do not
/// take a counter from each other.
final class CallGates: Sendable {
  /// The gate of the calls on the store itself. A volume is opened inside it.
  let store = CallGate()
  private let volumes = Locked<[ObjectIdentifier: CallGate]>(rank: .storeTable, [:])

  /// The gate of a volume that is being opened.
  func makeVolumeGate() -> CallGate {
    let gate = CallGate()
    volumes.withLock { $0[ObjectIdentifier(gate)] = gate }
    return gate
  }

  /// Ends the use of a volume's gate.
  func remove(_ gate: CallGate) { volumes.withLock { _ = $0.removeValue(forKey: ObjectIdentifier(gate)) } }

  /// Closes all gates. The store's comes first, so that no volume is opened after this has looked which there are.
  func close() {
    store.close()
    for gate in volumes.withLock({ Array($0.values) }) { gate.close() }
  }
}
