internal import Glibc

/// Starts threads that nobody joins: the one place that all of a store's own threads come from.
public enum DetachedThread {
  /// Starts a thread that runs `body` and ends with it.
  ///
  /// It has all signals blocked: they are the business of the program's own threads, one of which may be waiting for them.
  ///
  /// - Parameter stackByteCount: how long its stack is; nil for what the system gives.
  /// - Returns: 0, or the error number for why there is none. See pthread_create(3).
  public static func start(stackByteCount: Int? = nil, _ body: @escaping @Sendable () -> Void) -> Int32 {
    var attributes = pthread_attr_t()
    unsafe pthread_attr_init(&attributes)
    defer { unsafe pthread_attr_destroy(&attributes) }
    if let stackByteCount { unsafe pthread_attr_setstacksize(&attributes, stackByteCount) }
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    // A thread has the mask of the one that made it, from its first moment on.
    var (all, before) = (sigset_t(), sigset_t())
    unsafe sigfillset(&all)
    unsafe pthread_sigmask(SIG_BLOCK, &all, &before)
    defer { _ = unsafe pthread_sigmask(SIG_SETMASK, &before, nil) }
    let retained = unsafe Unmanaged.passRetained(ThreadBody(body))
    var thread = pthread_t()
    // Safe: the thread takes over the reference that was retained for it.
    let status = unsafe pthread_create(
      &thread, &attributes,
      { context in
        if let context = unsafe context { unsafe Unmanaged<ThreadBody>.fromOpaque(context).takeRetainedValue().run() }
        return nil
      }, retained.toOpaque())
    if status != 0 { unsafe retained.release() }
    return status
  }
}

/// What a thread runs.
private final class ThreadBody: Sendable {
  let run: @Sendable () -> Void

  init(_ run: @escaping @Sendable () -> Void) { self.run = run }
}
