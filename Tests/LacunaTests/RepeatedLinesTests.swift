import LacunaTestSupport
import Testing

@testable import Lacuna

@Suite struct `Lines that repeat` {
  private func error(_ number: Int) -> String {
    "nbdkit: lacuna.\(number % 16): error: no volume 'x\(number)' at \(number)"
  }

  @Test(.slow) func `get through five times, and are then counted`() {
    var lines = RepeatedLines()
    var written: [String] = []
    for number in 0..<1_000_000 { written += lines.take(error(number), at: UInt64(number) / 1000) }
    #expect(written == (0..<5).map(error))
    #expect(lines.takeDue(at: 9_999).isEmpty)
    #expect(lines.nextDue == 10_000)
    #expect(lines.takeDue(at: 10_000) == [error(999_999) + " (the last of 999995 more like it in 10 s)"])
    // More of them are summed up more and more rarely.
    #expect(lines.take(error(1), at: 10_001).isEmpty)
    #expect(lines.takeDue(at: 29_999).isEmpty)
    #expect(lines.takeDue(at: 30_000) == [error(1) + " (the last of 1 more like it in 20 s)"])
    // None for so long: the next ones are new.
    #expect(lines.takeDue(at: 70_000).isEmpty)
    #expect(lines.nextDue == nil)
    #expect(lines.take(error(2), at: 70_001) == [error(2)])
  }

  @Test func `do not hide others`() {
    var lines = RepeatedLines()
    for number in 0..<100 { _ = lines.take(error(number), at: 1) }
    #expect(
      lines.take("nbdkit: error: accept: Too many open files", at: 2) == ["nbdkit: error: accept: Too many open files"])
    // What is due comes before the line that comes with it.
    #expect(
      lines.take("other", at: 10_001) == [error(99) + " (the last of 95 more like it in 10 s)", "other"])
  }

  @Test func `of a thousand kinds are bounded together`() {
    var lines = RepeatedLines()
    var count = 0
    for round in 0..<10 {
      for first in "abcdefghij" {
        for second in "abcdefghij" {
          for third in "abcdefghij" {
            count += lines.take("\(first)\(second)\(third)", at: UInt64(round)).count
          }
        }
      }
    }
    #expect(count == 65 * 5)
    #expect(lines.takeDue(at: 20_000).count == 65)
  }

  @Test func `are summed up at the end`() {
    var lines = RepeatedLines()
    for number in 0..<8 { _ = lines.take(error(number), at: 0) }
    #expect(lines.takeAll(at: 2_500) == [error(7) + " (the last of 3 more like it in 3 s)"])
    #expect(lines.takeAll(at: 2_500).isEmpty)
  }

  @Test func `of a long flood take little`() {
    var lines = RepeatedLines()
    var count = 0
    // A day of a thousand a second.
    for second in 0..<86_400 {
      for _ in 0..<3 { count += lines.take(error(second), at: UInt64(second) * 1000).count }
    }
    #expect(count < 200, "\(count)")
  }
}
