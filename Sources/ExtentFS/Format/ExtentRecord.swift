package import Extents

/// One extent: a run of logical blocks and where they are.
///
/// ```
///  0  u64  logical     the key in an extent tree; what follows is the value
///  8  u64  physical    0 for reserved zeroes
/// 16  u32  length      in blocks, at least 1
/// 20  u32  flags       bit 0: reserved zeroes
/// ```
package struct ExtentRecord: Sendable, Hashable {
  /// The first logical block.
  package var logical: UInt64
  /// How many blocks; at least 1.
  package var length: UInt32
  /// Where the first block is: a physical block other than 0, or reserved zeroes.
  package var target: BlockLocation

  /// The size of an encoded extent with its key, in bytes.
  package static let encodedByteCount = 24
  /// The size of an encoded extent without its key, in bytes.
  package static let valueByteCount = 16
  /// The first number that is no logical and no physical block. The bound keeps all sums of them and a length inside
  /// 64 bits; no device and no volume comes near.
  package static let blockLimit: UInt64 = 1 << 62

  private static let unwrittenFlag: UInt32 = 1

  /// Makes an extent.
  package init(logical: UInt64, length: UInt32, target: BlockLocation) {
    self.logical = logical
    self.length = length
    self.target = target
  }

  /// The logical blocks.
  package var blocks: Range<UInt64> { logical..<logical + UInt64(length) }

  /// Decodes the extent at `offset`, key first; nil where it cannot be one: no blocks, blocks beyond `blockLimit`,
  /// unknown flags, or a physical block 0.
  package init?(decoding bytes: RawSpan, at offset: Int) {
    logical = bytes.uint64(at: offset)
    let physical = bytes.uint64(at: offset + 8)
    length = bytes.uint32(at: offset + 16)
    let flags = bytes.uint32(at: offset + 20)
    guard length > 0, logical <= Self.blockLimit - UInt64(length), physical <= Self.blockLimit - UInt64(length),
      flags == 0 && physical > 0 || flags == Self.unwrittenFlag && physical == 0
    else { return nil }
    target = flags == 0 ? .physical(physical) : .unwritten
  }

  /// Encodes the extent at `offset`, key first.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.store(logical, at: offset)
    bytes.store(target.physicalBlock ?? 0, at: offset + 8)
    bytes.store(length, at: offset + 16)
    bytes.store(target.physicalBlock == nil ? Self.unwrittenFlag : 0, at: offset + 20)
  }
}
