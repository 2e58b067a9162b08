internal import Glibc

/// A mutual exclusion lock that guards what its owner says: a right, a sequence of steps, the state of something below.
///
/// It wraps a POSIX mutex rather than the standard library's `Mutex`, because the thread sanitizer sees POSIX locks
/// and does not see the futex calls of `Mutex`, and the concurrency tests are only worth something under it.
///
/// The rule for use: compute inside, and keep input, output, waiting and logging outside. Not recursive.
public final class Lock: Sendable {
  private let mutex = POSIXMutex()

  /// Makes an unlocked lock.
  public init() {}

  deinit { mutex.destroy() }

  /// Runs `body` with the lock held.
  public func withLock<Result: ~Copyable, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
    -> Result
  {
    mutex.lock()
    defer { mutex.unlock() }
    return try body()
  }
}

/// A mutual exclusion lock with the state it guards.
///
/// The same rules hold as for ``Lock``, which is the one to take where there is no state: the thread sanitizer mistakes
/// access to a state without bytes for access to the object's header.
public final class Locked<State>: @unchecked Sendable {
  // Sendable because `state` is touched only between lock and unlock of `mutex`.
  private let mutex = POSIXMutex()
  private var state: State

  /// Makes an unlocked lock around `state`.
  public init(_ state: sending State) { self.state = state }

  deinit { mutex.destroy() }

  /// Runs `body` with the lock held and hands it the state.
  public func withLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    mutex.lock()
    defer { mutex.unlock() }
    return try body(&state)
  }
}

extension Locked {
  /// Takes the lock until `unlock`, for those who need a number of locks at once. Prefer ``withLock(_:)``.
  public func lock() { mutex.lock() }

  /// Lets go of the lock that this thread took with `lock`.
  public func unlock() { mutex.unlock() }

  /// Hands out the state. The caller has taken the lock.
  public func assumingLocked<Result>(_ body: (inout State) -> Result) -> Result { body(&state) }
}

/// A POSIX mutex at an address of its own. Its owner ends its life with `destroy()`.
@safe private struct POSIXMutex: @unchecked Sendable {
  // Sendable because a mutex is for use by many threads, and the pointer never changes.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>

  init() {
    unsafe mutex = .allocate(capacity: 1)
    // Adaptive: sections are short, so that a short spin is cheaper than the two context switches of a sleep.
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    unsafe pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP))
    defer { unsafe pthread_mutexattr_destroy(&attributes) }
    let status = unsafe pthread_mutex_init(mutex, &attributes)
    precondition(status == 0, "pthread_mutex_init failed with errno \(status)")
  }

  // Safe, all three: the mutex is initialised, and its owner destroys it last.
  func lock() { unsafe pthread_mutex_lock(mutex) }
  func unlock() { unsafe pthread_mutex_unlock(mutex) }
  func destroy() {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }
}

/// A reader-writer lock with the state it guards: many readers at once, or one writer.
///
/// The same rules hold as for ``Locked``.
@safe public final class ReadWriteLocked<State>: @unchecked Sendable {
  // Sendable because `state` is read only under the read lock and changed only under the write lock.
  private let rwlock: UnsafeMutablePointer<pthread_rwlock_t>
  private var state: State

  /// Makes an unlocked lock around `state`.
  public init(_ state: sending State) {
    self.state = state
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
    return try body(state)
  }

  /// Runs `body` alone.
  public func withWriteLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: as above.
    unsafe pthread_rwlock_wrlock(rwlock)
    defer { unsafe pthread_rwlock_unlock(rwlock) }
    return try body(&state)
  }
}
