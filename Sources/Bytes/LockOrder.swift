internal import Glibc

/// Watches in debug builds in which order each thread takes its locks; in release builds it is nothing.
///
/// A thread keeps the ranks of the locks that it holds. The order of ranks is that of ``LockRank``, so that no two threads can wait for
/// each other's locks. Locks of one rank are never held together, but for those of the writers of several volumes, which only the
/// thread that has the checkpoint's turn takes.
package enum LockOrder {
  #if DEBUG
    /// What one thread holds, in the order in which it was taken.
    private final class Held {
      /// With the address of each.
      var locks: [(rank: LockRank, lock: UInt)] = []
      /// How many calls of `allowingInputAndOutput` are running.
      var permissionCount = 0
    }

    private static let key: pthread_key_t = {
      var key = pthread_key_t()
      // Safe: a thread's value is what `held` has set.
      let status = unsafe pthread_key_create(&key) { value in
        if let value = unsafe value { unsafe Unmanaged<Held>.fromOpaque(value).release() }
      }
      precondition(status == 0, "pthread_key_create failed with errno \(status)")
      return key
    }()

    private static var held: Held {
      // Safe: it is set below only, and released when the thread ends.
      if let known = unsafe pthread_getspecific(key) {
        return unsafe Unmanaged<Held>.fromOpaque(known).takeUnretainedValue()
      }
      let held = Held()
      unsafe pthread_setspecific(key, Unmanaged.passRetained(held).toOpaque())
      return held
    }
  #endif

  /// This thread is about to wait for a lock.
  @inline(__always)
  static func willTake(_ rank: LockRank?) {
    #if DEBUG
      guard let rank else { return }
      let held = held
      guard let innermost = held.locks.map(\.rank).max(), innermost >= rank else { return }
      let isSecondVolume =
        rank == .volumeWriters && innermost == rank && held.locks.contains { $0.rank == .checkpointTurn }
      precondition(isSecondVolume, "a lock of the rank \(rank) is taken while one of the rank \(innermost) is held")
    #endif
  }

  /// This thread has taken `lock`.
  @inline(__always)
  static func didTake(_ rank: LockRank?, _ lock: UInt) {
    #if DEBUG
      if let rank { held.locks.append((rank, lock)) }
    #endif
  }

  /// This thread leaves `lock`.
  @inline(__always)
  static func willLeave(_ rank: LockRank?, _ lock: UInt) {
    #if DEBUG
      guard rank != nil else { return }
      let held = held
      guard let index = held.locks.lastIndex(where: { $0.lock == lock }) else {
        preconditionFailure("a lock is left by a thread that does not hold it")
      }
      held.locks.remove(at: index)
    #endif
  }

  /// Traps in debug builds unless this thread holds `lock`.
  @inline(__always)
  static func requireHeld(_ rank: LockRank?, _ lock: UInt) {
    #if DEBUG
      guard rank != nil else { return }
      precondition(held.locks.contains { $0.lock == lock }, "a lock is not held that must be")
    #endif
  }

  /// Traps in debug builds where this thread holds a lock that writers take: what comes may wait for a device.
  @inline(__always)
  package static func requireMayWait() {
    #if DEBUG
      let held = held
      guard held.permissionCount == 0, let found = held.locks.first(where: { $0.rank.isForWriters }) else { return }
      preconditionFailure("input or output while a lock of the rank \(found.rank) is held")
    #endif
  }

  /// Runs `body`, which may wait for a device though writers wait for this thread: the one place is the journal, whose records must be
  /// handed to the kernel in the order of the views.
  @inline(__always)
  package static func allowingInputAndOutput<Result, Failure: Error>(
    _ body: () throws(Failure) -> Result
  ) throws(Failure) -> Result {
    #if DEBUG
      held.permissionCount += 1
      defer { held.permissionCount -= 1 }
    #endif
    return try body()
  }
}
