/// How long checkpoints took since the store was opened.
package struct CheckpointTimes: Sendable {
  package var count: UInt64 = 0
  package var sum: Duration = .zero
  package var last: Duration = .zero
  package var longest: Duration = .zero

  mutating func note(_ time: Duration) {
    count += 1
    sum += time
    last = time
    longest = max(longest, time)
  }
}
