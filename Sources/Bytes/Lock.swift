internal import Glibc

/// A mutual exclusion lock that guards what its owner says: a right, a sequence of steps, the state of something below.
///
/// It wraps a POSIX mutex rather than the standard library's `Mutex`, because the thread sanitizer sees POSIX locks
/// and does not see the futex calls of `Mutex`, and the concurrency tests are only worth something under it.
///
/// The rule for use: compute inside, and keep input, output, waiting and logging outside. Not recursive.
public final class Lock: Sendable {
  private let mutex: POSIXMutex

  /// Makes an unlocked lock.
  package init(rank: LockRank? = nil) { mutex = POSIXMutex(rank) }

  deinit { mutex.destroy() }

  /// Runs `body` with the lock held.
  public func withLock<Result: ~Copyable, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure)
    -> Result
  {
    mutex.lock()
    defer { mutex.unlock() }
    return try body()
  }

  /// Traps in debug builds unless this thread holds the lock.
  @inline(__always)
  public func requireHeld() { mutex.requireHeld() }

  /// Runs `body` with the lock held, unless somebody holds it: nil then.
  public func withLockIfFree<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result? {
    guard mutex.tryLock() else { return nil }
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
  private let mutex: POSIXMutex
  private var state: State

  /// Makes an unlocked lock around `state`.
  package init(rank: LockRank? = nil, _ state: sending State) {
    mutex = POSIXMutex(rank)
    self.state = state
  }

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

  /// Hands out the state. The caller has taken the lock; debug builds trap where it has not.
  public func assumingLocked<Result>(_ body: (inout State) -> Result) -> Result {
    mutex.requireHeld()
    return body(&state)
  }
}

/// A POSIX mutex at an address of its own. Its owner ends its life with `destroy()`.
@safe private struct POSIXMutex: @unchecked Sendable {
  // Sendable because a mutex is for use by many threads, and the pointer never changes.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let rank: LockRank?

  init(_ rank: LockRank?) {
    self.rank = rank
    unsafe mutex = .allocate(capacity: 1)
    // Adaptive: sections are short, so that a short spin is cheaper than the two context switches of a sleep.
    var attributes = pthread_mutexattr_t()
    unsafe pthread_mutexattr_init(&attributes)
    unsafe pthread_mutexattr_settype(&attributes, Int32(PTHREAD_MUTEX_ADAPTIVE_NP))
    defer { unsafe pthread_mutexattr_destroy(&attributes) }
    let status = unsafe pthread_mutex_init(mutex, &attributes)
    precondition(status == 0, "pthread_mutex_init failed with errno \(status)")
  }

  // Safe, all five: the mutex is initialised, and its owner destroys it last.
  func lock() {
    LockOrder.willTake(rank)
    unsafe pthread_mutex_lock(mutex)
    LockOrder.didTake(rank, address)
  }
  func tryLock() -> Bool {
    guard unsafe pthread_mutex_trylock(mutex) == 0 else { return false }
    LockOrder.didTake(rank, address)
    return true
  }
  func unlock() {
    LockOrder.willLeave(rank, address)
    unsafe pthread_mutex_unlock(mutex)
  }
  func requireHeld() { LockOrder.requireHeld(rank, address) }
  private var address: UInt { unsafe UInt(bitPattern: mutex) }
  func destroy() {
    unsafe pthread_mutex_destroy(mutex)
    unsafe mutex.deallocate()
  }
}

/// A reader-writer lock that guards what its owner says: many readers at once, or one writer. Not recursive.
///
/// Who waits to write comes before readers that come later, so that readers cannot keep writers out.
@safe public final class ReadWriteLock: @unchecked Sendable {
  // Sendable because a lock is for use by many threads, and the pointer never changes.
  private let rwlock: UnsafeMutablePointer<pthread_rwlock_t>
  private let rank: LockRank?

  /// Makes an unlocked lock.
  package init(rank: LockRank? = nil) {
    self.rank = rank
    unsafe rwlock = .allocate(capacity: 1)
    var attributes = pthread_rwlockattr_t()
    unsafe pthread_rwlockattr_init(&attributes)
    unsafe pthread_rwlockattr_setkind_np(&attributes, Int32(PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP))
    defer { unsafe pthread_rwlockattr_destroy(&attributes) }
    let status = unsafe pthread_rwlock_init(rwlock, &attributes)
    precondition(status == 0, "pthread_rwlock_init failed with errno \(status)")
  }

  deinit {
    unsafe pthread_rwlock_destroy(rwlock)
    unsafe rwlock.deallocate()
  }

  /// Runs `body` beside other readers.
  public func withReadLock<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: the lock is initialised and lives as long as the object.
    LockOrder.willTake(rank)
    unsafe pthread_rwlock_rdlock(rwlock)
    LockOrder.didTake(rank, address)
    defer { unlock() }
    return try body()
  }

  /// Runs `body` alone.
  public func withWriteLock<Result: ~Copyable, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: as above.
    LockOrder.willTake(rank)
    unsafe pthread_rwlock_wrlock(rwlock)
    LockOrder.didTake(rank, address)
    defer { unlock() }
    return try body()
  }

  private var address: UInt { unsafe UInt(bitPattern: rwlock) }

  private func unlock() {
    LockOrder.willLeave(rank, address)
    unsafe pthread_rwlock_unlock(rwlock)
  }
}

/// A ``ReadWriteLock`` with the state it guards.
public final class ReadWriteLocked<State>: @unchecked Sendable {
  // Sendable because `state` is read only under the read lock and changed only under the write lock.
  private let lock: ReadWriteLock
  private var state: State

  /// Makes an unlocked lock around `state`.
  package init(rank: LockRank? = nil, _ state: sending State) {
    lock = ReadWriteLock(rank: rank)
    self.state = state
  }

  /// Runs `body` beside other readers.
  public func withReadLock<Result: ~Copyable, Failure: Error>(
    _ body: (borrowing State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withReadLock { () throws(Failure) in try body(state) }
  }

  /// Runs `body` alone.
  public func withWriteLock<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    try lock.withWriteLock { () throws(Failure) in try body(&state) }
  }
}
