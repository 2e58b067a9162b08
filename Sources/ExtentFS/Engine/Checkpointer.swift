internal import Atomics
internal import Bytes

/// The thread that runs checkpoints in the background.
///
/// It looks for work when it is woken, and when the time has passed that it was told to sleep. Any thread may call it.
final class Checkpointer: Sendable {
  private struct State {
    var isRunning = false
    var isWoken = false
    var isStopping = false
  }

  /// How long the thread may sleep.
  struct Sleep {
    var milliseconds: UInt32
    /// Whether any change is worth waking it for, rather than only an urgent one.
    var isDeep: Bool
  }

  private let state = Monitor(rank: .leaf, State())
  /// Whether a wake is on its way to the thread, so that no other needs to take the lock for one.
  private let isWakePending = ManagedAtomic(false)
  private let isDeeplyAsleep = ManagedAtomic(true)

  /// Starts the thread, which calls `work` each time, and sleeps then as that says. Once in the life of the object at most.
  func start(_ first: Sleep, _ work: @escaping @Sendable () -> Sleep) throws(ExtentFSError) {
    let (state, isWakePending, isDeeplyAsleep) = (state, isWakePending, isDeeplyAsleep)
    state.change { $0.isRunning = true }
    let status = DetachedThread.start {
      var sleep = first
      while true {
        isDeeplyAsleep.store(sleep.isDeep, ordering: .relaxed)
        let isStopping = state.wait(milliseconds: sleep.milliseconds) { state -> Bool? in
          guard state.isWoken || state.isStopping else { return nil }
          state.isWoken = false
          return state.isStopping
        }
        if isStopping == true { break }
        // Before the work, so that whoever sees a reason for more while it runs is heard. They order nothing else: what the
        // work looks at has locks of its own.
        isDeeplyAsleep.store(false, ordering: .relaxed)
        isWakePending.store(false, ordering: .relaxed)
        sleep = work()
      }
      state.change { $0.isRunning = false }
    }
    guard status == 0 else {
      state.change { $0.isRunning = false }
      throw ExtentFSError(.failed, "no thread for checkpoints could be made: error \(status)")
    }
  }

  /// Tells that something changed; wakes the thread where it is urgent, or where the thread is deeply asleep. Costs next to
  /// nothing otherwise.
  @inline(__always)
  func noteChange(isUrgent: Bool) {
    if isUrgent || isDeeplyAsleep.load(ordering: .relaxed) { wake() }
  }

  /// Wakes the thread.
  func wake() {
    guard !isWakePending.load(ordering: .relaxed), !isWakePending.exchange(true, ordering: .relaxed) else { return }
    state.change { $0.isWoken = true }
  }

  /// Whether the thread is to end.
  var isStopping: Bool { state.wait { $0.isStopping } }

  /// Ends the thread, after the checkpoint that it is in.
  func stop() {
    state.change { $0.isStopping = true }
    state.wait { $0.isRunning ? nil : () }
  }
}
