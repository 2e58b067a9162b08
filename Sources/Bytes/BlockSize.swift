/// A block size in bytes: a power of two, with the arithmetic that turns byte positions into block numbers.
public struct BlockSize: Sendable, Hashable {
  /// The binary logarithm of the size.
  public let shift: UInt64

  /// The common size, 4096 bytes.
  public static let standard = BlockSize(shift: 12)

  private init(shift: UInt64) { self.shift = shift }

  /// A block size of `byteCount` bytes; nil unless that is a power of two from 512 to 2^30.
  public init?(byteCount: Int) {
    guard byteCount >= 512, byteCount <= 1 << 30, byteCount & (byteCount - 1) == 0 else { return nil }
    self.init(shift: UInt64(byteCount.trailingZeroBitCount))
  }

  /// The size in bytes.
  public var byteCount: Int { 1 << Int(shift) }

  /// The number of the block that holds the byte at `offset`.
  public func block(at offset: UInt64) -> UInt64 { offset >> shift }

  /// How far into its block the byte at `offset` lies, in bytes.
  public func remainder(of offset: UInt64) -> Int { Int(truncatingIfNeeded: offset & mask) }

  /// The byte at which `block` begins. `block` must come from a byte position: below 2^(64 - shift).
  public func offset(of block: UInt64) -> UInt64 { block << shift }

  /// The number of blocks that `byteCount` bytes from position 0 touch.
  public func blocks(toHold byteCount: UInt64) -> UInt64 {
    (byteCount >> shift) + (byteCount & mask == 0 ? 0 : 1)
  }

  /// The blocks that `bytes` touches, whole or in part; empty where `bytes` is.
  public func blocks(touching bytes: Range<UInt64>) -> Range<UInt64> {
    let first = block(at: bytes.lowerBound)
    return first..<(bytes.isEmpty ? first : blocks(toHold: bytes.upperBound))
  }

  /// The blocks that lie wholly inside `bytes`; empty where there are none.
  public func blocks(inside bytes: Range<UInt64>) -> Range<UInt64> {
    let first = blocks(toHold: bytes.lowerBound)
    return first..<Swift.max(first, block(at: bytes.upperBound))
  }

  /// The bytes of `blocks` that lie in `range`, which overlaps them.
  public func bytes(of blocks: Range<UInt64>, within range: Range<UInt64>) -> Range<UInt64> {
    max(offset(of: blocks.lowerBound), range.lowerBound)..<min(offset(of: blocks.upperBound), range.upperBound)
  }

  var mask: UInt64 { (1 << shift) &- 1 }
}
