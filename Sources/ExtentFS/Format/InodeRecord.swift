/// A volume or a snapshot, or what is left of one.
///
/// ```
///   0  u32  flags            bit 0: read-only, bit 1: throwaway
///   4  u32  kind             1 volume, 2 snapshot, 3 deleted
///   8  u64  byteCount
///  16  u64  createdSeconds   since 1970
///  24  u64  origin           inode, which may be gone; 0 none
///  32   32  TreeRoot         of the extent tree
///  64  u64  mappedBlocks     blocks with a physical block
///  72  u64  reservedBlocks   blocks of reserved zeroes
///  80  u16  inlineCount      at most 4; not 0 only where the tree is empty
///  82  u16  nameLength       in bytes, at most 255
///  84  u32  zero
///  88   96  four ExtentRecords
/// 184  255  name, UTF-8
/// 439    1  zero
/// 440  u64  quotaBlocks      0 none
/// 448  u64  reservationBlocks
/// 456   56  zero
/// ```
package struct InodeRecord: Sendable, Equatable {
  /// What an inode is.
  package enum Kind: UInt32, Sendable {
    case volume = 1
    case snapshot = 2
    /// It has no name any more, and its tree is given up step by step. Nodes may have fewer entries than elsewhere, and an
    /// inner root only one.
    case deleted = 3
  }

  /// What the inode is.
  package var kind: Kind
  /// Whether the inode refuses changes.
  package var isReadOnly: Bool
  /// Whether the inode is a clone without a name, which goes with the connections that use it.
  package var isThrowaway = false
  /// The size in bytes, at most 2^63 - 1.
  package var byteCount: UInt64
  /// When the inode was made, in seconds since 1970.
  package var createdSeconds: UInt64
  /// The inode that this one was made from, which may be gone meanwhile; 0 for none.
  package var origin: UInt64
  /// The extent tree; empty where the extents are inline.
  package var extents: TreeRoot
  /// How many logical blocks have a physical block.
  package var mappedBlocks: UInt64
  /// How many logical blocks are reserved zeroes.
  package var reservedBlocks: UInt64
  /// The extents, in order, of an inode that has at most four of them and no tree.
  package var inlineExtents: [ExtentRecord]
  /// The name, at most 255 bytes of UTF-8. A deleted inode and a throwaway have none: it is empty.
  package var name: String
  /// The most logical blocks that the volume may map; 0 for no limit.
  package var quotaBlocks: UInt64 = 0
  /// How many blocks the volume is promised in all, mapped ones included; 0 for none.
  package var reservationBlocks: UInt64 = 0

  /// The size of an encoded record, in bytes.
  package static let encodedByteCount = 512
  /// How many extents fit into the record.
  package static let maximumInlineExtentCount = 4
  /// How long a name may be, in bytes of UTF-8.
  package static let maximumNameByteCount = 255

  private static let readOnlyFlag: UInt32 = 1
  private static let throwawayFlag: UInt32 = 2
  private static let extentsOffset = 88
  private static let nameOffset = 184
  private static let quotaOffset = 440
  private static let reservationOffset = 448

  /// Whether the inode is gone, or goes by itself: nobody finds it by a name.
  package var isTransient: Bool { isThrowaway || kind == .deleted }

  /// How many blocks the inode does not have and may count on: its reserved zeroes, and what is left of its reservation. 0 for
  /// what is not written to: a snapshot, and what is deleted; and for throwaways.
  package var promisedBlocks: UInt64 {
    guard kind == .volume, !isThrowaway else { return 0 }
    // Fits: each of them is at most 2^62.
    let sum = reservedBlocks + (reservationBlocks > mappedBlocks ? reservationBlocks - mappedBlocks : 0)
    return min(sum, ExtentRecord.blockLimit)
  }

  /// Makes the record of an empty volume or snapshot.
  package init(kind: Kind, name: String, byteCount: UInt64, createdSeconds: UInt64) {
    self.kind = kind
    isReadOnly = kind == .snapshot
    self.byteCount = byteCount
    self.createdSeconds = createdSeconds
    origin = 0
    extents = .empty
    mappedBlocks = 0
    reservedBlocks = 0
    inlineExtents = []
    self.name = name
  }

  /// Decodes the record in the 512 bytes at `offset`.
  ///
  /// - Throws: `ExtentFSError` with `damaged` for what cannot be a record.
  package init(decoding bytes: RawSpan, at offset: Int) throws(ExtentFSError) {
    let flags = bytes.uint32(at: offset)
    guard flags & ~(Self.readOnlyFlag | Self.throwawayFlag) == 0,
      let kind = Kind(rawValue: bytes.uint32(at: offset + 4)), kind != .snapshot || flags & Self.throwawayFlag == 0
    else {
      throw ExtentFSError(.damaged, "an inode has the kind \(bytes.uint32(at: offset + 4)) and the flags \(flags)")
    }
    self.kind = kind
    isReadOnly = flags & Self.readOnlyFlag != 0
    isThrowaway = flags & Self.throwawayFlag != 0
    byteCount = bytes.uint64(at: offset + 8)
    createdSeconds = bytes.uint64(at: offset + 16)
    origin = bytes.uint64(at: offset + 24)
    extents = try TreeRoot(decoding: bytes, at: offset + 32)
    mappedBlocks = bytes.uint64(at: offset + 64)
    reservedBlocks = bytes.uint64(at: offset + 72)
    guard byteCount <= UInt64(Int64.max), mappedBlocks <= ExtentRecord.blockLimit,
      reservedBlocks <= ExtentRecord.blockLimit
    else { throw ExtentFSError(.damaged, "an inode has the size \(byteCount)") }
    inlineExtents = try Self.inlineExtents(bytes, at: offset)
    name = try Self.name(bytes, at: offset)
    quotaBlocks = bytes.uint64(at: offset + Self.quotaOffset)
    reservationBlocks = bytes.uint64(at: offset + Self.reservationOffset)
    guard quotaBlocks <= ExtentRecord.blockLimit, reservationBlocks <= ExtentRecord.blockLimit else {
      throw ExtentFSError(
        .damaged, "an inode has a quota of \(quotaBlocks) and a reservation of \(reservationBlocks) blocks")
    }
    guard name.isEmpty || !isTransient else { throw ExtentFSError(.damaged, "an inode that is gone has a name") }
    guard inlineExtents.isEmpty || extents.isEmpty else {
      throw ExtentFSError(.damaged, "an inode has both inline extents and a tree")
    }
  }

  private static func inlineExtents(_ bytes: RawSpan, at offset: Int) throws(ExtentFSError) -> [ExtentRecord] {
    let count = Int(bytes.uint16(at: offset + 80))
    guard count <= maximumInlineExtentCount else {
      throw ExtentFSError(.damaged, "an inode has \(count) inline extents")
    }
    var extents: [ExtentRecord] = []
    for index in 0..<count {
      let place = offset + extentsOffset + index * ExtentRecord.encodedByteCount
      let end = extents.last?.blocks.upperBound ?? 0
      guard let extent = ExtentRecord(decoding: bytes, at: place), extent.logical >= end else {
        throw ExtentFSError(.damaged, "inline extent \(index) of an inode is invalid")
      }
      extents.append(extent)
    }
    return extents
  }

  private static func name(_ bytes: RawSpan, at offset: Int) throws(ExtentFSError) -> String {
    let length = Int(bytes.uint16(at: offset + 82))
    guard length <= maximumNameByteCount else {
      throw ExtentFSError(.damaged, "an inode has a name of \(length) bytes")
    }
    let name = (0..<length).map { bytes.uint8(at: offset + nameOffset + $0) }
    guard let name = String(validating: name, as: UTF8.self) else {
      throw ExtentFSError(.damaged, "an inode has a name that is not UTF-8")
    }
    return name
  }

  /// Encodes the record into the 512 bytes at `offset`, all of which it sets.
  ///
  /// The name and the inline extents must be as the documentation of their properties says.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    let name = self.name.utf8
    precondition(name.count <= Self.maximumNameByteCount, "the name of an inode has \(name.count) bytes")
    precondition(inlineExtents.count <= Self.maximumInlineExtentCount, "an inode has too many inline extents")
    bytes.zero(offset..<offset + Self.encodedByteCount)
    bytes.store((isReadOnly ? Self.readOnlyFlag : 0) | (isThrowaway ? Self.throwawayFlag : 0), at: offset)
    bytes.store(kind.rawValue, at: offset + 4)
    bytes.store(byteCount, at: offset + 8)
    bytes.store(createdSeconds, at: offset + 16)
    bytes.store(origin, at: offset + 24)
    extents.encode(into: &bytes, at: offset + 32)
    bytes.store(mappedBlocks, at: offset + 64)
    bytes.store(reservedBlocks, at: offset + 72)
    bytes.store(UInt16(inlineExtents.count), at: offset + 80)
    bytes.store(UInt16(name.count), at: offset + 82)
    for (index, extent) in inlineExtents.enumerated() {
      extent.encode(into: &bytes, at: offset + Self.extentsOffset + index * ExtentRecord.encodedByteCount)
    }
    for (index, byte) in name.enumerated() { bytes.store(byte, at: offset + Self.nameOffset + index) }
    bytes.store(quotaBlocks, at: offset + Self.quotaOffset)
    bytes.store(reservationBlocks, at: offset + Self.reservationOffset)
  }
}
