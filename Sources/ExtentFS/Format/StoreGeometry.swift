package import Bytes

/// Where everything is on the device: a pure function of the block size and the length of the journal.
///
/// ```
/// byte 0       superblock slot 0, 4096 bytes
/// byte 65536   superblock slot 1, 4096 bytes
/// byte 131072  journal ring, journalByteCount bytes
/// block H      group 0, G blocks: 66 metadata blocks, then blocks for data and nodes
/// block H + G  group 1 ...
/// ```
///
/// G is the number of bits in a block. A group's first blocks are two slots for its bitmap, then two for each of its
/// 32 checksum blocks. A group may reach past the device's end.
package struct StoreGeometry: Sendable, Hashable {
  /// The size of a block.
  package let blockSize: BlockSize
  /// The length of the journal ring in bytes.
  package let journalByteCount: UInt64

  /// The block sizes that a store may have, in bytes. Stores for use have 4096 or more, those of tests 1024 too.
  package static let blockByteCounts = 1024...65536
  /// The length of a superblock slot, in bytes.
  package static let superblockByteCount = 4096
  /// The number of superblock slots.
  package static let superblockSlotCount = 2
  /// Where the journal ring begins, in bytes.
  package static let journalOffset: UInt64 = 131_072
  /// What the length of the journal ring is a multiple of, in bytes.
  package static let journalUnit: UInt64 = 65_536
  /// The greatest length of a journal ring, in bytes.
  package static let maximumJournalByteCount: UInt64 = 1 << 32
  /// How many checksum blocks a group has.
  package static let checksumBlocksPerGroup = 32
  /// How many blocks at a group's start are never for data or nodes.
  package static let metadataBlocksPerGroup: UInt64 = 66

  /// The geometry of a store with blocks of `blockSize` and a journal ring of `journalByteCount` bytes.
  ///
  /// - Throws: `ExtentFSError` with `invalidArgument` where either cannot be.
  package init(blockSize: BlockSize, journalByteCount: UInt64) throws(ExtentFSError) {
    guard Self.blockByteCounts.contains(blockSize.byteCount) else {
      throw ExtentFSError(.invalidArgument, "a store cannot have blocks of \(blockSize.byteCount) bytes")
    }
    guard journalByteCount >= Self.journalUnit, journalByteCount <= Self.maximumJournalByteCount,
      journalByteCount % Self.journalUnit == 0
    else { throw ExtentFSError(.invalidArgument, "a journal cannot have \(journalByteCount) bytes") }
    self.blockSize = blockSize
    self.journalByteCount = journalByteCount
  }

  /// Where superblock slot `slot` (0 or 1) begins, in bytes.
  package static func superblockOffset(ofSlot slot: Int) -> UInt64 { UInt64(slot & 1) * 65536 }

  /// The bytes that the journal takes.
  package var journalRegion: Range<UInt64> { Self.journalOffset..<Self.journalOffset + journalByteCount }

  /// How much of the journal is kept for changes that cannot be merged, in bytes: twice what they may take, since an opening needs as
  /// much room again (`JournalReplay.startBehind`).
  var keptJournalByteCount: UInt64 { journalByteCount / 4 }

  /// H: the number of blocks before the first group.
  package var headBlockCount: UInt64 { (Self.journalOffset + journalByteCount) >> blockSize.shift }

  /// G: the number of blocks in a group.
  package var blocksPerGroup: UInt64 { 8 << blockSize.shift }

  /// How many blocks' checksums one checksum block holds.
  package var checksumsPerBlock: UInt64 { (1 << blockSize.shift) / 4 }

  /// How many groups a device of `blockCount` blocks has room for, the last one perhaps in part. A piece too short for
  /// a group's metadata and one more block is no group.
  package func groupCount(inDeviceOf blockCount: UInt64) -> UInt64 {
    guard blockCount > headBlockCount else { return 0 }
    let (whole, rest) = (blockCount - headBlockCount).quotientAndRemainder(dividingBy: blocksPerGroup)
    return whole + (rest > Self.metadataBlocksPerGroup ? 1 : 0)
  }

  /// The group that `block` is in; nil for a block before the first group.
  package func group(of block: UInt64) -> UInt64? {
    block < headBlockCount ? nil : (block - headBlockCount) / blocksPerGroup
  }

  /// How far into its group `block` is; `block` is not before the first group.
  package func indexInGroup(of block: UInt64) -> UInt64 { (block &- headBlockCount) & (blocksPerGroup - 1) }

  /// The first block of `group`. Never traps; numbers of groups beyond any device give meaningless blocks.
  package func firstBlock(ofGroup group: UInt64) -> UInt64 { headBlockCount &+ group &* blocksPerGroup }

  /// The block of slot `slot` (0 or 1) of the bitmap of `group`.
  package func bitmapBlock(ofGroup group: UInt64, slot: Int) -> UInt64 {
    firstBlock(ofGroup: group) &+ UInt64(slot & 1)
  }

  /// The block of slot `slot` (0 or 1) of checksum block `index` (0 to 31) of `group`.
  package func checksumBlock(ofGroup group: UInt64, index: Int, slot: Int) -> UInt64 {
    firstBlock(ofGroup: group) &+ 2 &+ 2 &* UInt64(index & 31) &+ UInt64(slot & 1)
  }
}
