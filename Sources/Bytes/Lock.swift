internal import Glibc

/// A mutual exclusion lock with the state it guards.
///
/// It wraps a POSIX mutex rather than the standard library's `Mutex`, because the thread sanitizer sees POSIX locks
/// and does not see the futex calls of `Mutex`, and the concurrency tests are only worth something under it.
///
/// The rule for use: compute inside, and keep input, output, waiting and logging outside. Not recursive.
@safe public final class Locked<State>: @unchecked Sendable {
  // Sendable because `guarded` is touched only between lock and unlock of `mutex`.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  // The byte gives a state without a size, such as `Void`, an address of its own. Otherwise it has the object's, and the
  // thread sanitizer takes each access for a race with those who read the object's header.
  private var guarded: (state: State, byte: UInt8)

  /// Makes an unlocked lock around `state`.
  public init(_ state: sending State) {
    guarded = (state, 0)
    unsafe mutex = .allocate(capacity: 1)
    // Adaptive: sections are short, so that a short spin is cheaper than the two context switches of a sleep.
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    unsafe pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP))
    defer { unsafe pthread_mutexattr_destroy(&attributes) }
    let status = unsafe pthread_mutex_init(mutex, &attributes)
    precondition(status == 0, "pthread_mutex_init failed with errno \(status)")
  }

  deinit {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }

  /// Runs `body` with the lock held and hands it the state.
  public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: the mutex is initialised and lives as long as the object.
    unsafe pthread_mutex_lock(mutex)
    defer { unsafe pthread_mutex_unlock(mutex) }
    return try body(&guarded.state)
  }
}

/// A reader-writer lock with the state it guards: many readers at once, or one writer.
///
/// The same rules hold as for ``Locked``.
@safe public final class ReadWriteLocked<State>: @unchecked Sendable {
  // Sendable because `guarded` is read only under the read lock and changed only under the write lock.
  private let rwlock: UnsafeMutablePointer<pthread_rwlock_t>
  private var guarded: (state: State, byte: UInt8)  // As above.

  /// Makes an unlocked lock around `state`.
  public init(_ state: sending State) {
    guarded = (state, 0)
    unsafe rwlock = .allocate(capacity: 1)
    let status = unsafe pthread_rwlock_init(rwlock, nil)
    precondition(status == 0, "pthread_rwlock_init failed with errno \(status)")
  }

  deinit {
    unsafe pthread_rwlock_destroy(rwlock)
    unsafe rwlock.deallocate()
  }

  /// Runs `body` beside other readers.
  public func withReadLock<Result: ~Copyable, Failure: Error>(
    _ body: (borrowing State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: the lock is initialised and lives as long as the object.
    unsafe pthread_rwlock_rdlock(rwlock)
    defer { unsafe pthread_rwlock_unlock(rwlock) }
    return try body(guarded.state)
  }

  /// Runs `body` alone.
  public func withWriteLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: as above.
    unsafe pthread_rwlock_wrlock(rwlock)
    defer { unsafe pthread_rwlock_unlock(rwlock) }
    return try body(&guarded.state)
  }
}
