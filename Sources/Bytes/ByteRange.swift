extension Range<UInt64> {
  /// The `byteCount` bytes from `offset` on; nil where the range is empty of meaning: a negative count, or an end
  /// above 2^63 - 1, the largest position a disk can have.
  public init?(offset: UInt64, byteCount: Int) {
    guard byteCount >= 0 else { return nil }
    self.init(offset: offset, byteCount: UInt64(byteCount))
  }

  /// The `byteCount` bytes from `offset` on; nil where the end lies above 2^63 - 1.
  public init?(offset: UInt64, byteCount: UInt64) {
    let (end, overflow) = offset.addingReportingOverflow(byteCount)
    guard !overflow, end <= UInt64(Int64.max) else { return nil }
    self = offset..<end
  }

  /// How many positions the range covers. (`count` is an `Int`, and traps where that is too small.)
  public var length: UInt64 { upperBound - lowerBound }
}
