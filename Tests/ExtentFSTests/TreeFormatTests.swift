import Bytes
import Checksums
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct TreeFormatTests {
  @Test func `a block pointer has the bytes of the format`() {
    let pointer = BlockPointer(block: 0x0102_0304_0506_0708, generation: 0x1112_1314_1516_1718, checksum: 0x2122_2324)
    let bytes = encoded(24) { pointer.encode(into: &$0, at: 0) }
    #expect(hex(bytes) == "0807060504030201 1817161514131211 2423222100000000")
    #expect(BlockPointer(decoding: bytes.span.bytes, at: 0) == pointer)
  }

  @Test func `a tree root has the bytes of the format`() throws {
    let root = TreeRoot(pointer: BlockPointer(block: 5, generation: 6, checksum: 7), height: 3)
    let bytes = encoded(32) { root.encode(into: &$0, at: 0) }
    #expect(hex(bytes) == "0500000000000000 0600000000000000 0700000000000000 0300000000000000")
    #expect(try TreeRoot(decoding: bytes.span.bytes, at: 0) == root)
  }

  @Test(arguments: [(0, 1), (1, 0), (1, 25), (1, 255)] as [(UInt64, UInt8)])
  func `a root whose height cannot be is damaged`(block: UInt64, height: UInt8) {
    let bytes = encoded(32) {
      $0.store(block, at: 0)
      $0.store(height, at: 24)
    }
    expectDamaged { _ = try TreeRoot(decoding: bytes.span.bytes, at: 0) }
  }

  @Test func `extents have the bytes of the format`() {
    let extent = ExtentRecord(logical: 0x0A, length: 0x0B, target: .physical(0x0C))
    #expect(
      hex(encoded(24) { extent.encode(into: &$0, at: 0) }) == "0a00000000000000 0c00000000000000 0b00000000000000")
    let zeroes = ExtentRecord(logical: 1, length: .max, target: .unwritten)
    #expect(
      hex(encoded(24) { zeroes.encode(into: &$0, at: 0) }) == "0100000000000000 0000000000000000 ffffffff01000000")
    for each in [extent, zeroes] {
      let bytes = encoded(24) { each.encode(into: &$0, at: 0) }
      #expect(ExtentRecord(decoding: bytes.span.bytes, at: 0) == each)
    }
  }

  @Test(
    arguments: [
      (1, 1, 0, 0), (1, 0, 1, 0), (1, 1, 1, 1), (1, 1, 1, 2), (.max, 1, 1, 0), (1, .max, 1, 0),
      (1 << 62, 1, 1, 0), ((1 << 62) - 1, 1, 2, 0), (1, (1 << 62) - 1, 2, 0),
    ] as [(UInt64, UInt64, UInt32, UInt32)])
  func `what cannot be an extent is none`(logical: UInt64, physical: UInt64, length: UInt32, flags: UInt32) {
    let bytes = encoded(24) {
      $0.store(logical, at: 0)
      $0.store(physical, at: 8)
      $0.store(length, at: 16)
      $0.store(flags, at: 20)
    }
    #expect(ExtentRecord(decoding: bytes.span.bytes, at: 0) == nil)
  }

  private var inode: InodeRecord {
    var inode = InodeRecord(kind: .snapshot, name: "vms/wéb", byteCount: 1 << 40, createdSeconds: 99)
    (inode.origin, inode.mappedBlocks, inode.reservedBlocks) = (12, 13, 14)
    inode.inlineExtents = [
      ExtentRecord(logical: 3, length: 4, target: .physical(5)),
      ExtentRecord(logical: 7, length: 9, target: .unwritten),
    ]
    return inode
  }

  @Test func `an inode has the bytes of the format`() throws {
    let bytes = encoded(512) { inode.encode(into: &$0, at: 0) }
    let text = hex(bytes).split(separator: " ")
    #expect(text[0..<4] == ["0100000002000000", "0000000000010000", "6300000000000000", "0c00000000000000"])
    #expect(text[8..<11] == ["0d00000000000000", "0e00000000000000", "0200080000000000"])
    #expect(text[11..<14] == ["0300000000000000", "0500000000000000", "0400000000000000"])
    #expect(text[14..<17] == ["0700000000000000", "0000000000000000", "0900000001000000"])
    #expect(text[23] == "766d732f77c3a962")
    #expect(try InodeRecord(decoding: bytes.span.bytes, at: 0) == inode)
  }

  @Test(arguments: [
    (0, 2), (0, 3), (0, 4), (4, 0), (4, 3), (4, 4), (15, 0x80), (447, 0x41), (455, 0x41), (80, 5), (83, 1), (189, 0xFF),
    (56, 1), (104, 0), (112, 6),
  ])
  func `an inode with a wrong byte is damaged`(offset: Int, byte: Int) {
    var bytes = encoded(512) { inode.encode(into: &$0, at: 0) }
    bytes[offset] = UInt8(byte)
    expectDamaged { _ = try InodeRecord(decoding: bytes.span.bytes, at: 0) }
  }

  @Test func `an inode that is gone, a quota and a reservation have the bytes of the format`() throws {
    var inode = InodeRecord(kind: .volume, name: "", byteCount: 1 << 40, createdSeconds: 99)
    inode.isThrowaway = true
    (inode.quotaBlocks, inode.reservationBlocks) = (0x0102, 1 << 62)
    for kind in [InodeRecord.Kind.volume, .deleted] {
      inode.kind = kind
      let bytes = encoded(512) { inode.encode(into: &$0, at: 0) }
      let text = hex(bytes).split(separator: " ")
      #expect(text[0] == (kind == .volume ? "0200000001000000" : "0200000003000000"))
      #expect(text[23..<55].allSatisfy { $0 == "0000000000000000" })
      #expect(text[55..<57] == ["0201000000000000", "0000000000000040"])
      #expect(text[57...].allSatisfy { $0 == "0000000000000000" })
      #expect(try InodeRecord(decoding: bytes.span.bytes, at: 0) == inode)
    }
  }

  @Test func `an inode is promised its reserved zeroes, and what is left of its reservation`() {
    var inode = InodeRecord(kind: .volume, name: "a", byteCount: 1 << 40, createdSeconds: 0)
    (inode.mappedBlocks, inode.reservedBlocks) = (10, 3)
    #expect(inode.promisedBlocks == 3)
    inode.reservationBlocks = 10
    #expect(inode.promisedBlocks == 3)
    inode.reservationBlocks = 15
    #expect(inode.promisedBlocks == 8)
    inode.kind = .snapshot
    #expect(inode.promisedBlocks == 0)
    (inode.kind, inode.reservationBlocks, inode.reservedBlocks) = (.volume, 1 << 62, 1 << 62)
    // No count is above that, whatever a damaged store says.
    #expect(inode.promisedBlocks == (1 as UInt64) << 62)
  }

  @Test func `a group has the bytes of the format`() throws {
    var group = GroupRecord(freeCount: 0x0102_0304, bitmapChecksum: 0x1112_1314)
    (group.bitmapSlot, group.checksumSlots, group.checksumPresent) = (1, 0x8000_0001, 0x4000_0002)
    for index in 0..<32 { group.checksums[index] = UInt32(index) }
    let bytes = encoded(152) { group.encode(into: &$0, at: 0) }
    #expect(
      hex(bytes).hasPrefix("0403020114131211 0100000001000080 0200004000000000 0000000001000000 0200000003000000"))
    #expect(try GroupRecord(decoding: bytes.span.bytes, at: 0) == group)
    var damaged = bytes
    damaged[8] = 2
    expectDamaged { _ = try GroupRecord(decoding: damaged.span.bytes, at: 0) }
  }

  @Test func `a shared run has the bytes of the format`() throws {
    let record = SharedRecord(length: 5, count: 2)
    let bytes = encoded(16) { record.encode(into: &$0, at: 0) }
    #expect(hex(bytes) == "0500000000000000 0200000000000000")
    #expect(try SharedRecord(decoding: bytes.span.bytes, at: 0) == record)
    for (length, count) in [(0, 2), (1, 1), (1 << 63, 2)] as [(UInt64, UInt64)] {
      let bytes = encoded(16) { SharedRecord(length: length, count: count).encode(into: &$0, at: 0) }
      expectDamaged { _ = try SharedRecord(decoding: bytes.span.bytes, at: 0) }
    }
  }

  private func superblock() throws -> Superblock {
    var superblock = Superblock(
      uuid: StoreUUID(tag: 0x0807_0605_0403_0201, rest: 0x100F_0E0D_0C0B_0A09),
      geometry: try StoreGeometry(blockSize: .standard, journalByteCount: 1 << 20), generation: 17, blockCount: 50_000)
    superblock.compatibleFeatures = 4
    (superblock.journalTailOffset, superblock.journalTailSequence, superblock.journalEpoch) = (4096, 77, 3)
    (superblock.nextInode, superblock.defaultInode, superblock.usedBlockCount) = (9, 1, 400)
    (superblock.groupCount, superblock.createdSeconds) = (2, 1_700_000_000)
    superblock.inodes = TreeRoot(pointer: BlockPointer(block: 1000, generation: 17, checksum: 1), height: 1)
    superblock.names = TreeRoot(pointer: BlockPointer(block: 1001, generation: 16, checksum: 2), height: 2)
    superblock.space = TreeRoot(pointer: BlockPointer(block: 1002, generation: 15, checksum: 3), height: 3)
    return superblock
  }

  @Test func `a superblock has the bytes of the format`() throws {
    let superblock = try superblock()
    let bytes = encoded(4096) { superblock.encode(into: &$0) }
    let text = hex(bytes).split(separator: " ")
    #expect(String(decoding: bytes[0..<8], as: UTF8.self) == "LACUNA\r\n")
    #expect(text[1].hasPrefix("01000000"))
    #expect(text[2..<5] == ["0400000000000000", "0000000000000000", "0000000000000000"])
    #expect(text[5..<8] == ["0102030405060708", "090a0b0c0d0e0f10", "0010000000000000"])
    #expect(text[8..<12] == ["1100000000000000", "50c3000000000000", "0000100000000000", "0010000000000000"])
    #expect(text[19..<21] == ["e803000000000000", "1100000000000000"])
    #expect(text[35..<511].allSatisfy { $0 == "0000000000000000" } && text[511] == text[8])
    var body = bytes
    body.replaceSubrange(12..<16, with: [0, 0, 0, 0])
    #expect(body.withUnsafeBytes { CRC32C.checksum($0) } == bytes.span.bytes.uint32(at: 12))
    #expect(try Superblock(decoding: bytes.span.bytes) == superblock)
    #expect(superblock.uuid.description == "01020304-0506-0708-090a-0b0c0d0e0f10")
  }

  @Test func `counts of the feature "snapshots" are stored with it alone`() throws {
    var superblock = try superblock()
    (superblock.nodeBlockCount, superblock.reservedBlockCount, superblock.transientCount) = (400, 1 << 62, 9)
    let without = encoded(4096) { superblock.encode(into: &$0) }
    #expect(without[4032..<4088].allSatisfy { $0 == 0 })
    #expect(try Superblock(decoding: without.span.bytes).nodeBlockCount == 0)
    #expect(!superblock.has(.snapshots))
    superblock.add(.snapshots)
    #expect(superblock.has(.snapshots))
    let bytes = encoded(4096) { superblock.encode(into: &$0) }
    let text = hex(bytes).split(separator: " ")
    #expect(text[4] == "0100000000000000")
    #expect(text[35...37] == ["0100000000000000", "0300090000000000", "736e617073686f74"])
    #expect(text[504...506] == ["9001000000000000", "0000000000000040", "0900000000000000"])
    #expect(text[507..<511].allSatisfy { $0 == "0000000000000000" })
    #expect(try Superblock(decoding: bytes.span.bytes) == superblock)
    for change in [{ $0.nodeBlockCount = 401 }, { $0.reservedBlockCount += 1 }, { $0.transientCount = 10 }]
      as [(inout Superblock) -> Void]
    {
      var wrong = superblock
      change(&wrong)
      let bytes = encoded(4096) { wrong.encode(into: &$0) }
      expectDamaged { _ = try Superblock(decoding: bytes.span.bytes) }
    }
  }

  @Test func `the limit is stored with the feature "limit", which comes and goes with it`() throws {
    var superblock = try superblock()
    superblock.setLimit(0x0102_0304_0506_0708)
    #expect(superblock.has(.limit) && superblock.featureNames == [.limit] && !superblock.hasLostLimit)
    var bytes = encoded(4096) { superblock.encode(into: &$0) }
    var text = hex(bytes).split(separator: " ")
    #expect(text[2] == "0500000000000000" && text[507] == "0807060504030201")
    #expect(text[35...37] == ["0100000000000000", "0100050000000000", "6c696d6974000000"])
    #expect(text[508..<511].allSatisfy { $0 == "0000000000000000" })
    #expect(try Superblock(decoding: bytes.span.bytes) == superblock)
    superblock.setLimit(0)
    bytes = encoded(4096) { superblock.encode(into: &$0) }
    text = hex(bytes).split(separator: " ")
    #expect(text[2] == "0400000000000000" && text[35..<511].allSatisfy { $0 == "0000000000000000" })
    #expect(superblock.limitByteCount == 0 && !superblock.hasLostLimit)
    // As a program leaves it that does not know the feature.
    superblock.add(.limit)
    #expect(superblock.hasLostLimit)
  }

  @Test func `a feature is added where there is no room for its name`() throws {
    var superblock = try superblock()
    superblock.featureNames = (0..<64).map { StoreFeature(.compatible, bit: $0, name: "name\($0)") }
    superblock.add(.snapshots)
    let bytes = encoded(4096) { superblock.encode(into: &$0) }
    let decoded = try Superblock(decoding: bytes.span.bytes)
    #expect(decoded.has(.snapshots) && decoded.featureNames.count == 64)
  }

  @Test func `every single bit changed in a superblock is found`() throws {
    let superblock = try superblock()
    var bytes = encoded(4096) { superblock.encode(into: &$0) }
    for offset in Array(0..<512) + Array(4032..<4096) {
      for bit in 0..<8 {
        bytes[offset] ^= 1 << bit
        #expect(throws: ExtentFSError.self) { try Superblock(decoding: bytes.span.bytes) }
        bytes[offset] ^= 1 << bit
      }
    }
  }

  @Test func `superblocks of newer formats and of no store are told apart`() throws {
    var superblock = try superblock()
    superblock.incompatibleFeatures = 1 << 5 | 1 << 63
    let newer = encoded(4096) { superblock.encode(into: &$0) }
    let error = #expect(throws: ExtentFSError.self) { try Superblock(decoding: newer.span.bytes) }
    #expect(error?.code == .newerFormat)
    #expect(error?.facts.hasSuffix("bit 5, bit 63") == true)
    for bytes in [[], [UInt8](repeating: 0, count: 4096), [UInt8](newer[0..<4095])] {
      let error = #expect(throws: ExtentFSError.self) { try Superblock(decoding: bytes.span.bytes) }
      #expect(error?.code == .notAStore)
    }
    superblock.incompatibleFeatures = 0
    superblock.readOnlyCompatibleFeatures = 2
    let readOnly = encoded(4096) { superblock.encode(into: &$0) }
    #expect(try Superblock(decoding: readOnly.span.bytes).featuresAgainstWriting == "bit 1")
  }

  @Test func `impossible fields under a right checksum are damage`() throws {
    let changes: [(inout Superblock) -> Void] = [
      { $0.blockCount = 3 }, { $0.blockCount = .max }, { $0.groupCount = 3 }, { $0.usedBlockCount = 50_001 },
      { $0.journalTailOffset = 1 << 20 },
      { $0.names = TreeRoot(pointer: .null, height: 1) },
    ]
    for change in changes {
      var superblock = try superblock()
      change(&superblock)
      let bytes = encoded(4096) { superblock.encode(into: &$0) }
      expectDamaged { _ = try Superblock(decoding: bytes.span.bytes) }
    }
  }

  @Test func `random bytes are never a trap`() throws {
    try withSeededGenerator { generator in
      for _ in 0..<3000 {
        let bytes = (0..<512).map { _ in generator.oneIn(3) ? UInt8(truncatingIfNeeded: generator.next()) : 0 }
        _ = try? InodeRecord(decoding: bytes.span.bytes, at: 0)
        _ = try? GroupRecord(decoding: bytes.span.bytes, at: 0)
        _ = try? SharedRecord(decoding: bytes.span.bytes, at: 0)
        _ = try? TreeRoot(decoding: bytes.span.bytes, at: 0)
        _ = ExtentRecord(decoding: bytes.span.bytes, at: 0)
        _ = NodeHeader(decoding: bytes.span.bytes)
      }
    }
  }

  @Test func `groups lie one behind the other after the journal`() throws {
    let geometry = try StoreGeometry(blockSize: .standard, journalByteCount: 1 << 20)
    #expect(geometry.headBlockCount == 32 + 256)
    #expect(geometry.blocksPerGroup == 32_768)
    #expect(geometry.checksumsPerBlock == 1024)
    #expect(geometry.group(of: 287) == nil)
    #expect(geometry.group(of: 288) == 0)
    #expect(geometry.group(of: 288 + 32_768) == 1)
    #expect(geometry.indexInGroup(of: 288 + 32_768 + 5) == 5)
    #expect(geometry.bitmapBlock(ofGroup: 1, slot: 1) == 288 + 32_768 + 1)
    #expect(geometry.checksumBlock(ofGroup: 0, index: 31, slot: 1) == 288 + 65)
    #expect(geometry.groupCount(inDeviceOf: 288) == 0)
    #expect(geometry.groupCount(inDeviceOf: 288 + 66) == 0)
    #expect(geometry.groupCount(inDeviceOf: 288 + 67) == 1)
    #expect(geometry.groupCount(inDeviceOf: 288 + 32_768 + 67) == 2)
    #expect(throws: ExtentFSError.self) { try StoreGeometry(blockSize: .standard, journalByteCount: 65_537) }
    #expect(throws: ExtentFSError.self) { try StoreGeometry(blockSize: .standard, journalByteCount: 0) }
  }

  @Test func `the key of a name is its FNV-1a hash`() {
    #expect(NameHash.key(of: "") == 0xCBF2_9CE4_8422_2325)
    #expect(NameHash.key(of: "foobar") == 0x8594_4171_F739_67E8)
  }

  @Test func `the checksum of a block depends on where it belongs`() {
    let bytes: [UInt8] = Array("123456789".utf8)
    let checksums = Set(
      (0..<100).map { block in
        bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: UInt64(block)) }
      })
    #expect(checksums.count == 100)
    let whole = bytes + [7, 0, 0, 0, 0, 0, 0, 0]
    #expect(
      bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: 7) }
        == whole.withUnsafeBytes { CRC32C.checksum($0) })
  }
}

/// `count` bytes, 0xEE before `body` encodes into them, so that bytes it leaves out show.
func encoded(_ count: Int, _ body: (inout MutableRawSpan) -> Void) -> [UInt8] {
  var bytes = [UInt8](repeating: 0xEE, count: count)
  var elements = bytes.mutableSpan
  var span = elements.mutableBytes
  body(&span)
  return bytes
}

/// The bytes in hexadecimal, eight in a group.
private func hex(_ bytes: [UInt8]) -> String {
  stride(from: 0, to: bytes.count, by: 8).map { start in
    bytes[start..<min(start + 8, bytes.count)].map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }.joined(separator: " ")
}

func expectDamaged(_ body: () throws -> Void) {
  let error = #expect(throws: ExtentFSError.self) { try body() }
  #expect(error?.code == .damaged)
}
