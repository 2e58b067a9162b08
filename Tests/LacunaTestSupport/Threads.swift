import Bytes
import Glibc

/// Runs every one of `bodies` in a thread of its own, all at once, and waits until all have returned.
///
/// - Parameter stackByteCount: the size of each thread's stack.
/// - Throws: the error of the first of `bodies` that threw one.
package func inThreads(
  stackByteCount: Int = 1 << 20, _ bodies: [@Sendable () throws -> Void]
) throws {
  let failures = Locked<[Int: any Error]>([:])
  let threads = try bodies.enumerated().map { index, body in
    try startThread(stackByteCount: stackByteCount) {
      do { try body() } catch { failures.withLock { $0[index] = error } }
    }
  }
  for thread in threads { pthread_join(thread, nil) }
  if let first = failures.withLock({ $0.min { $0.key < $1.key } }) { throw first.value }
}

/// Runs `body` in `count` threads at once, with the index of each, and waits for all.
package func inThreads(_ count: Int, _ body: @escaping @Sendable (_ index: Int) throws -> Void) throws {
  try inThreads((0..<count).map { index in { @Sendable () throws in try body(index) } })
}

private func startThread(stackByteCount: Int, _ body: @escaping @Sendable () -> Void) throws -> pthread_t {
  var attributes = pthread_attr_t()
  pthread_attr_init(&attributes)
  defer { pthread_attr_destroy(&attributes) }
  pthread_attr_setstacksize(&attributes, stackByteCount)
  let box = Unmanaged.passRetained(ThreadBody(body))
  var thread = pthread_t()
  let status = pthread_create(
    &thread, &attributes,
    { pointer in
      if let pointer { Unmanaged<ThreadBody>.fromOpaque(pointer).takeRetainedValue().body() }
      return nil
    }, box.toOpaque())
  guard status == 0 else {
    box.release()
    throw CheckFailure("pthread_create: \(String(cString: strerror(status)))")
  }
  return thread
}

private final class ThreadBody: Sendable {
  let body: @Sendable () -> Void
  init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// A door that threads wait at until it is opened; it then stays open.
package final class Gate: @unchecked Sendable {
  // Sendable because `isOpen` is touched under `mutex` only, and the two pointers never change.
  private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var isOpen = false

  package init() {
    pthread_mutex_init(mutex, nil)
    pthread_cond_init(condition, nil)
  }

  deinit {
    pthread_cond_destroy(condition)
    pthread_mutex_destroy(mutex)
    condition.deallocate()
    mutex.deallocate()
  }

  /// Lets everyone pass, from now on.
  package func open() {
    pthread_mutex_lock(mutex)
    isOpen = true
    pthread_cond_broadcast(condition)
    pthread_mutex_unlock(mutex)
  }

  /// Returns once the door is open.
  package func pass() {
    pthread_mutex_lock(mutex)
    while !isOpen { pthread_cond_wait(condition, mutex) }
    pthread_mutex_unlock(mutex)
  }
}

/// A place where a number of threads wait for each other, again and again.
package final class Rendezvous: @unchecked Sendable {
  // Sendable because a barrier is for use by many threads, and the pointer never changes.
  private let barrier = UnsafeMutablePointer<pthread_barrier_t>.allocate(capacity: 1)

  package init(of threadCount: Int) { pthread_barrier_init(barrier, nil, UInt32(threadCount)) }

  deinit {
    pthread_barrier_destroy(barrier)
    barrier.deallocate()
  }

  /// Returns once all threads have come here.
  package func meet() { pthread_barrier_wait(barrier) }
}
