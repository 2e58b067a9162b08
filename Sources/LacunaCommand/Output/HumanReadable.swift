internal import Glibc

/// Numbers as tables show them.
enum HumanReadable {
  /// Three digits and a unit, such as `10 GiB`, `1.5 MiB`, `512 B`: what fits a table. JSON has the exact bytes.
  static func bytes(_ count: UInt64) -> String {
    guard count >= 1000 else { return "\(count) B" }
    var power = 1
    // In the larger unit from 1000 on, so that there are never four digits; the last unit is large enough for all.
    while power < ByteCount.letters.count, Double(count) / scale(power) >= 999.5 { power += 1 }
    return "\(threeDigits(Double(count) / scale(power))) \(ByteCount.letters[power - 1])iB"
  }

  /// The same, with the exact number after it: `10 GiB (10737418240 bytes)`.
  static func exactBytes(_ count: UInt64) -> String {
    count < 1000 ? "\(count) bytes" : "\(bytes(count)) (\(count) bytes)"
  }

  /// Three digits and a unit of time: `450 ns`, `1.25 ms`, `3.5 s`.
  static func duration(seconds: Double) -> String {
    if seconds <= 0 { return "0 s" }
    for (unit, size) in [("ns", 1e-9), ("us", 1e-6), ("ms", 1e-3)] where seconds / size < 999.5 {
      return "\(threeDigits(seconds / size)) \(unit)"
    }
    return "\(threeDigits(seconds)) s"
  }

  /// `12.5%`; a dash where there is no whole.
  static func percent(_ part: Double, of whole: Double) -> String {
    whole > 0 ? "\(threeDigits(100 * part / whole))%" : "-"
  }

  /// `1 volume`, `2 volumes`, with a plural of its own where that is not the noun with an s.
  static func count(_ number: some BinaryInteger, _ noun: String, _ plural: String? = nil) -> String {
    "\(number) \(number == 1 ? noun : plural ?? noun + "s")"
  }

  /// Date and time where the user is, such as `2026-11-23 02:55:11`.
  static func date(_ seconds: UInt64) -> String {
    guard var time = time_t(exactly: seconds) else { return "\(seconds)" }
    var parts = unsafe tm()
    // Safe: both structures outlive the call, and the pointer in the second one, to a name, is not used.
    guard unsafe localtime_r(&time, &parts) != nil else { return "\(seconds)" }
    func padded(_ number: Int32) -> String { number < 10 ? "0\(number)" : "\(number)" }
    let date = unsafe [parts.tm_year + 1900, parts.tm_mon + 1, parts.tm_mday].map(padded).joined(separator: "-")
    return unsafe "\(date) " + [parts.tm_hour, parts.tm_min, parts.tm_sec].map(padded).joined(separator: ":")
  }

  /// Three significant digits without zeroes at the end: `1.25`, `12.5`, `125`, and more digits only before the point.
  static func threeDigits(_ value: Double) -> String {
    let decimals = value < 9.995 ? 2 : value < 99.95 ? 1 : 0
    let scale = decimals == 2 ? 100.0 : decimals == 1 ? 10.0 : 1.0
    guard let scaled = UInt64(exactly: (value * scale).rounded()) else { return "\(value)" }
    var text = "\(scaled)"
    guard decimals > 0 else { return text }
    while text.count <= decimals { text = "0" + text }
    text.insert(".", at: text.index(text.endIndex, offsetBy: -decimals))
    while text.last == "0" { text.removeLast() }
    if text.last == "." { text.removeLast() }
    return text
  }

  private static func scale(_ power: Int) -> Double { Double(UInt64(1) << (10 * UInt64(power))) }
}

extension String {
  /// The same with each paragraph in one line, for what wraps lines itself; lines that begin with a space stay as they are.
  var unwrapped: String {
    var lines: [String] = []
    var shouldContinue = false
    for line in split(separator: "\n", omittingEmptySubsequences: false) {
      let isProse = !line.isEmpty && line.first != " "
      if shouldContinue, isProse { lines[lines.count - 1] += " " + line } else { lines.append(String(line)) }
      shouldContinue = isProse
    }
    return lines.joined(separator: "\n")
  }
}
