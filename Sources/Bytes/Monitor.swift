internal import Glibc

/// A lock with the state it guards, on which threads can wait for the state to become something.
///
/// It is ``Locked`` with a POSIX condition variable: waiting threads sleep. The same rules hold.
@safe public final class Monitor<State>: @unchecked Sendable {
  // Sendable because `state` is touched only with `mutex` held.
  private let mutex: UnsafeMutablePointer<pthread_mutex_t>
  private let changed: UnsafeMutablePointer<pthread_cond_t>
  private let rank: LockRank?
  private var state: State

  /// Makes an unlocked monitor around `state`.
  package init(rank: LockRank? = nil, _ state: sending State) {
    self.state = state
    self.rank = rank
    unsafe mutex = .allocate(capacity: 1)
    unsafe changed = .allocate(capacity: 1)
    let status = unsafe pthread_mutex_init(mutex, nil)
    precondition(status == 0, "pthread_mutex_init failed with errno \(status)")
    // A wait takes as long as was asked for, also where somebody sets the time of day meanwhile.
    var attributes = pthread_condattr_t()
    unsafe pthread_condattr_init(&attributes)
    defer { unsafe pthread_condattr_destroy(&attributes) }
    unsafe pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
    let conditionStatus = unsafe pthread_cond_init(changed, &attributes)
    precondition(conditionStatus == 0, "pthread_cond_init failed with errno \(conditionStatus)")
  }

  deinit {
    unsafe pthread_cond_destroy(changed)
    unsafe pthread_mutex_destroy(mutex)
    unsafe changed.deallocate()
    unsafe mutex.deallocate()
  }

  /// Runs `body` with the lock held, then lets every waiting thread look at the state again.
  public func change<Result: ~Copyable, Failure: Error>(
    _ body: (inout State) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    // Safe: mutex and condition are initialised and live as long as the object.
    lock()
    defer {
      unsafe pthread_cond_broadcast(changed)
      unlock()
    }
    return try body(&state)
  }

  /// Waits up to `milliseconds`, by a clock that nobody sets, for `body`, run with the lock held after every change, to return
  /// something; nil after that time.
  public func wait<Result, Failure: Error>(
    milliseconds: UInt32, until body: (inout State) throws(Failure) -> Result?
  ) throws(Failure) -> Result? {
    var deadline = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &deadline)
    let nanoseconds = deadline.tv_nsec + Int(milliseconds % 1000) * 1_000_000
    deadline.tv_sec += Int(milliseconds / 1000) + nanoseconds / 1_000_000_000
    deadline.tv_nsec = nanoseconds % 1_000_000_000
    // Safe: as above.
    lock()
    defer { unlock() }
    while true {
      if let result = try body(&state) { return result }
      if unsafe pthread_cond_timedwait(changed, mutex, &deadline) == ETIMEDOUT { return try body(&state) }
    }
  }

  /// Runs `body` with the lock held, again after every change, until it returns something or throws.
  ///
  /// `body` may change the state where it does not return nil; waiting threads do not learn of that.
  public func wait<Result, Failure: Error>(
    until body: (inout State) throws(Failure) -> Result?
  ) throws(Failure) -> Result {
    // Safe: as above. The wait lets go of the mutex, and returns with it held.
    lock()
    defer { unlock() }
    while true {
      if let result = try body(&state) { return result }
      unsafe pthread_cond_wait(changed, mutex)
    }
  }

  private var address: UInt { unsafe UInt(bitPattern: mutex) }

  private func lock() {
    LockOrder.willTake(rank)
    unsafe pthread_mutex_lock(mutex)
    LockOrder.didTake(rank, address)
  }

  private func unlock() {
    LockOrder.willLeave(rank, address)
    unsafe pthread_mutex_unlock(mutex)
  }
}
