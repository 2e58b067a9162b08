internal import Bytes
internal import Glibc

/// The thread that runs checkpoints in the background.
///
/// It runs one when it is woken, and when the time between two has passed. Any thread may call it.
final class Checkpointer: Sendable {
  private struct State {
    var isRunning = false
    var isWoken = false
    var isStopping = false
  }

  private let state = Monitor(State())

  /// Starts the thread, which calls `work` each time. Once in the life of the object at most.
  func start(seconds: UInt32, _ work: @escaping @Sendable () -> Void) throws(ExtentFSError) {
    let state = state
    state.change { $0.isRunning = true }
    let body = ThreadBody {
      while true {
        let isStopping = state.wait(seconds: seconds) { state -> Bool? in
          guard state.isWoken || state.isStopping else { return nil }
          state.isWoken = false
          return state.isStopping
        }
        if isStopping == true { break }
        work()
      }
      state.change { $0.isRunning = false }
    }
    let status = body.startDetached()
    guard status == 0 else {
      state.change { $0.isRunning = false }
      throw ExtentFSError(.failed, "no thread for checkpoints could be made: error \(status)")
    }
  }

  /// Asks for a checkpoint soon.
  func wake() { state.change { $0.isWoken = true } }

  /// Ends the thread, after the checkpoint that it is in.
  func stop() {
    state.change { $0.isStopping = true }
    state.wait { $0.isRunning ? nil : () }
  }
}

/// What a thread runs.
private final class ThreadBody: Sendable {
  private let run: @Sendable () -> Void

  init(_ run: @escaping @Sendable () -> Void) { self.run = run }

  /// Starts a thread that nobody joins; 0, or the error number.
  func startDetached() -> Int32 {
    let retained = unsafe Unmanaged.passRetained(self)
    var thread = pthread_t()
    // Safe: the thread takes over the reference that was retained for it.
    let status = unsafe pthread_create(
      &thread, nil,
      { context in
        if let context = unsafe context { unsafe Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
        return nil
      }, retained.toOpaque())
    if status == 0 { pthread_detach(thread) } else { unsafe retained.release() }
    return status
  }
}
