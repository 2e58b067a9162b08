/// What the space tree knows of one group: the key is the group's number.
///
/// ```
///  0  u32      freeCount          free blocks of the group
///  4  u32      bitmapChecksum     see MetadataChecksum
///  8  u8       bitmapSlot         0 or 1
///  9    3      zero
/// 12  u32      checksumSlots      bit i: the slot of checksum block i
/// 16  u32      checksumPresent    bit i: checksum block i was ever written; else all its checksums are 0
/// 20  u32      zero
/// 24  u32[32]  checksums of the checksum blocks
/// ```
package struct GroupRecord: Sendable, Equatable {
  /// How many blocks of the group are free.
  package var freeCount: UInt32
  /// The bitmap block's ``MetadataChecksum``.
  package var bitmapChecksum: UInt32
  /// Which slot has the bitmap: 0 or 1.
  package var bitmapSlot: Int
  /// Bit i: which slot has checksum block i.
  package var checksumSlots: UInt32
  /// Bit i: whether checksum block i was ever written.
  package var checksumPresent: UInt32
  /// The ``MetadataChecksum`` of each checksum block.
  package var checksums: InlineArray<32, UInt32>

  /// The size of an encoded record, in bytes.
  package static let encodedByteCount = 152

  /// The record of a group whose bitmap is in slot 0, without checksum blocks.
  package init(freeCount: UInt32 = 0, bitmapChecksum: UInt32 = 0) {
    self.freeCount = freeCount
    self.bitmapChecksum = bitmapChecksum
    bitmapSlot = 0
    checksumSlots = 0
    checksumPresent = 0
    checksums = InlineArray(repeating: 0)
  }

  /// Decodes the record in the 152 bytes at `offset`.
  ///
  /// - Throws: `ExtentFSError` with `damaged` for a slot that cannot be.
  package init(decoding bytes: RawSpan, at offset: Int) throws(ExtentFSError) {
    freeCount = bytes.uint32(at: offset)
    bitmapChecksum = bytes.uint32(at: offset + 4)
    bitmapSlot = Int(bytes.uint8(at: offset + 8))
    checksumSlots = bytes.uint32(at: offset + 12)
    checksumPresent = bytes.uint32(at: offset + 16)
    checksums = InlineArray { bytes.uint32(at: offset + 24 + 4 * $0) }
    guard bitmapSlot <= 1 else { throw ExtentFSError(.damaged, "a group has its bitmap in slot \(bitmapSlot)") }
  }

  /// Encodes the record into the 152 bytes at `offset`, all of which it sets.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.store(freeCount, at: offset)
    bytes.store(bitmapChecksum, at: offset + 4)
    bytes.store(UInt32(bitmapSlot & 1), at: offset + 8)
    bytes.store(checksumSlots, at: offset + 12)
    bytes.store(checksumPresent, at: offset + 16)
    bytes.store(UInt32(0), at: offset + 20)
    for index in checksums.indices { bytes.store(checksums[index], at: offset + 24 + 4 * index) }
  }

  package static func == (left: GroupRecord, right: GroupRecord) -> Bool {
    left.freeCount == right.freeCount && left.bitmapChecksum == right.bitmapChecksum
      && left.bitmapSlot == right.bitmapSlot && left.checksumSlots == right.checksumSlots
      && left.checksumPresent == right.checksumPresent
      && left.checksums.indices.allSatisfy { left.checksums[$0] == right.checksums[$0] }
  }
}
