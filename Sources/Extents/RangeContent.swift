/// What a range of bytes or blocks holds, as a client sees it.
public enum RangeContent: Sendable, Hashable {
  /// Bytes that were written.
  case data
  /// Zeroes that have space promised to them.
  case unwritten
  /// Nothing; reads as zeroes.
  case hole
}

extension RangeContent {
  public func advanced(by count: UInt64) -> RangeContent { self }
}

extension RangeContent: RunValue {}
