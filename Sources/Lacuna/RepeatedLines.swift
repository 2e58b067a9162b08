/// What of many lines a log gets, so that a client that causes the same error a million times does not fill the disk.
///
/// Lines are of one kind where they differ in nothing but numbers and what stands in quotes. Of each kind the log gets five lines, and
/// when ten seconds have passed since the first of them, the last one with the number of those that it did not get. If there are more
/// after that, they are summed up in the same way, after twice as long each time, up to ten minutes, until none came for so long.
package struct RepeatedLines {
  private struct Kind {
    var end: UInt64
    var period: UInt64
    /// How many lines go through before this period's end.
    var left: Int
    var heldCount = 0
    var lastHeld = ""
  }

  private var kinds: [String: Kind] = [:]

  private static let lineCount = 5
  private static let firstPeriod: UInt64 = 10_000
  private static let periodMax: UInt64 = 600_000
  /// More kinds than these are one.
  private static let kindCountMax = 64
  private static let kindLengthMax = 200

  package init() {}

  /// Takes in a line.
  ///
  /// - Parameter now: milliseconds, by a clock that only goes forward.
  /// - Returns: what the log gets.
  package mutating func take(_ line: String, at now: UInt64) -> [String] {
    var lines = takeDue(at: now)
    var name = Self.kind(of: line)
    if kinds[name] == nil, kinds.count >= Self.kindCountMax { name = "" }
    var kind = kinds[name] ?? Kind(end: now + Self.firstPeriod, period: Self.firstPeriod, left: Self.lineCount)
    if kind.left > 0 {
      kind.left -= 1
      lines.append(line)
    } else {
      kind.heldCount += 1
      kind.lastHeld = line
    }
    kinds[name] = kind
    return lines
  }

  /// What the log gets because time has passed.
  package mutating func takeDue(at now: UInt64) -> [String] {
    guard let nextDue, nextDue <= now else { return [] }
    var lines: [String] = []
    for (name, kind) in kinds where kind.end <= now {
      guard let summary = Self.summary(of: kind, after: kind.period) else {
        kinds[name] = nil
        continue
      }
      lines.append(summary)
      let period = min(kind.period * 2, Self.periodMax)
      kinds[name] = Kind(end: now + period, period: period, left: 0)
    }
    return lines.sorted()
  }

  /// What the log gets when nothing more comes.
  package mutating func takeAll(at now: UInt64) -> [String] {
    defer { kinds = [:] }
    return kinds.values.compactMap {
      Self.summary(of: $0, after: $0.period - min($0.end - min(now, $0.end), $0.period))
    }.sorted()
  }

  /// When ``takeDue(at:)`` may have something; nil where that takes another line.
  package var nextDue: UInt64? { kinds.values.map(\.end).min() }

  private static func summary(of kind: Kind, after milliseconds: UInt64) -> String? {
    guard kind.heldCount > 0 else { return nil }
    return "\(kind.lastHeld) (the last of \(kind.heldCount) more like it in \((milliseconds + 999) / 1000) s)"
  }

  /// What lines of one kind have in common.
  private static func kind(of line: String) -> String {
    var name: [UInt8] = []
    var isQuoted = false
    var isNumber = false
    for byte in line.utf8.prefix(4 * kindLengthMax) where name.count < kindLengthMax {
      let isDigit = (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
      if byte == UInt8(ascii: "'") { isQuoted.toggle() }
      if !isQuoted, !(isDigit && isNumber) { name.append(isDigit ? UInt8(ascii: "0") : byte) }
      isNumber = isDigit
    }
    return String(decoding: name, as: UTF8.self)
  }
}
