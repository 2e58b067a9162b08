import Glibc

/// A point in time after which waiting is a failure; every wait of the NBD tests has one.
package struct Deadline: Sendable {
  private let nanoseconds: UInt64

  /// A point `seconds` from now.
  package init(secondsFromNow seconds: Double) {
    nanoseconds = Deadline.now() + UInt64(seconds * 1e9)
  }

  /// Whether the point has passed.
  package var hasPassed: Bool { Deadline.now() >= nanoseconds }

  /// What is left, in milliseconds; 0 once the point has passed.
  package var millisecondsLeft: Int32 {
    let now = Deadline.now()
    return now >= nanoseconds ? 0 : Int32(clamping: (nanoseconds - now) / 1_000_000 + 1)
  }

  /// Asks `condition` every few milliseconds until it holds.
  ///
  /// - Returns: false when the deadline passed first.
  package func wait(until condition: () throws -> Bool) rethrows -> Bool {
    while true {
      if try condition() { return true }
      if hasPassed { return false }
      usleep(2_000)
    }
  }

  private static func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }
}
