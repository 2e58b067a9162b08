/// A contiguous run of blocks on the medium.
public struct PhysicalRun: Sendable, Hashable {
  /// The first block.
  public var block: UInt64
  /// How many blocks; at least 1.
  public var count: UInt64

  /// Makes a run.
  public init(block: UInt64, count: UInt64) {
    self.block = block
    self.count = count
  }

  /// The blocks as a range.
  public var blocks: Range<UInt64> { block..<block + count }
}
