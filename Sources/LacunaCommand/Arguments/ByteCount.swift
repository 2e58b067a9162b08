internal import ArgumentParser

/// A number of bytes as people write it: `512`, `10G`, `1.5T`.
///
/// The letters are qemu-img's, in upper or lower case: B, K, M, G, T, P and E, for powers of 1024; `GiB` means `G`. A number may
/// have decimals where a letter follows it, and what is then left of a byte is dropped.
struct ByteCount: Hashable, Sendable {
  var bytes: UInt64

  /// The letters, smallest first, for 1024 to the power of 1, 2 and so on.
  static let letters: [Character] = ["K", "M", "G", "T", "P", "E"]

  init(bytes: UInt64) { self.bytes = bytes }

  /// Reads `text`; fails where it is no number, has an unknown letter, or does not fit 64 bits.
  init(reading text: some StringProtocol) throws(UnreadableByteCount) {
    func unreadable(_ reason: String) -> UnreadableByteCount { UnreadableByteCount(text: String(text), reason: reason) }
    let whole = text.prefix { $0.isASCII && $0.isNumber }
    guard !whole.isEmpty else { throw unreadable("it must begin with a digit, as in 10G") }
    guard let wholeNumber = UInt64(whole) else { throw unreadable("it is too large") }
    var rest = text[whole.endIndex...]
    var decimals: Substring?
    if rest.first == "." {
      let digits = rest.dropFirst().prefix { $0.isASCII && $0.isNumber }
      guard !digits.isEmpty else { throw unreadable("a digit must follow the point") }
      rest = rest[digits.endIndex...]
      decimals = Substring(digits)
    }
    guard let power = Self.power(of: rest) else {
      throw unreadable("after the number, one of B, K, M, G, T, P and E may follow (powers of 1024)")
    }
    let unit = UInt64(1) << (10 * UInt64(power))
    if decimals != nil && power == 0 { throw unreadable("there are no parts of a byte") }
    let (product, overflows) = wholeNumber.multipliedReportingOverflow(by: unit)
    let (sum, overflowsToo) = product.addingReportingOverflow(Self.part(decimals ?? "", of: unit))
    guard !overflows, !overflowsToo else { throw unreadable("it is too large") }
    bytes = sum
  }

  /// The power of 1024 that a suffix stands for; nil where it is none.
  private static func power(of suffix: some StringProtocol) -> Int? {
    let upper = suffix.uppercased()
    if upper.isEmpty || upper == "B" { return 0 }
    guard let first = upper.first, let index = letters.firstIndex(of: first) else { return nil }
    return upper.count == 1 || upper.dropFirst() == "IB" ? index + 1 : nil
  }

  /// The part 0.`decimals` of `unit`, rounded down: exact up to 18 digits, and the others change nothing.
  private static func part(_ decimals: Substring, of unit: UInt64) -> UInt64 {
    var numerator: UInt64 = 0
    var denominator: UInt64 = 1
    for digit in decimals.prefix(18) {
      numerator = numerator * 10 + UInt64(digit.wholeNumberValue ?? 0)
      denominator *= 10
    }
    // The numerator is smaller than the denominator, so the quotient is smaller than the unit.
    return denominator.dividingFullWidth(unit.multipliedFullWidth(by: numerator)).quotient
  }
}

/// Why a text is no number of bytes.
struct UnreadableByteCount: Error, CustomStringConvertible {
  var text: String
  var reason: String

  var description: String { "'\(text)' is no size: \(reason)" }
}

/// What a size is to become: a new one, or one that is larger or smaller than now by so much.
enum SizeChange: Hashable, Sendable {
  case to(ByteCount)
  case growBy(ByteCount)
  case shrinkBy(ByteCount)

  /// Reads `10G`, `+10G` or `-10G`.
  init(reading text: String) throws(UnreadableByteCount) {
    switch text.first {
    case "+": self = .growBy(try ByteCount(reading: text.dropFirst()))
    case "-": self = .shrinkBy(try ByteCount(reading: text.dropFirst()))
    default: self = .to(try ByteCount(reading: text))
    }
  }

  /// Whether the size that results depends on the old one.
  var isRelative: Bool { if case .to = self { false } else { true } }

  /// The size that results from `old`; nil where it does not fit 64 bits or would be negative.
  func applied(to old: UInt64) -> UInt64? {
    let (result, overflows) =
      switch self {
      case .to(let size): (size.bytes, false)
      case .growBy(let count): old.addingReportingOverflow(count.bytes)
      case .shrinkBy(let count): old.subtractingReportingOverflow(count.bytes)
      }
    return overflows ? nil : result
  }
}

/// What `@Option(transform:)` takes for sizes, so that the message says what is wrong.
@Sendable func readByteCount(_ text: String) throws -> ByteCount {
  do { return try ByteCount(reading: text) } catch { throw ValidationError(error.description) }
}

/// The same for a size, or `none` for no bound.
@Sendable func readBound(_ text: String) throws -> ByteCount {
  text.lowercased() == "none" ? ByteCount(bytes: 0) : try readByteCount(text)
}

/// The same for the change of a size.
@Sendable func readSizeChange(_ text: String) throws -> SizeChange {
  do { return try SizeChange(reading: text) } catch { throw ValidationError(error.description) }
}
