import Bytes
import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// Stores that were made to break the engine, one way each, with all checksums right.
@Suite(.slow) struct EngineHostileTests {
  private static func entryPlace(_ node: UInt64, _ index: UInt64, _ entryByteCount: UInt64) -> UInt64 {
    node * 1024 + 64 + index * entryByteCount
  }

  // MARK: Trees

  /// Where a child pointer leads to that cannot lead there.
  private enum Target: CaseIterable {
    case itself, superblock, journal, bitmap, sibling, otherTree, behindEnd, nowhere, largest
  }

  @Test(arguments: Target.allCases) private func `a child that cannot be one is damage`(_ target: Target) throws {
    let store = try HostileStore()
    let root = try #require(store.seals.blocks.firstIndex { $0.kind == "extents 1" })
    let block = store.seals.blocks[root].block
    let child = Self.entryPlace(block, 0, 32) + 8
    let device = store.device()
    let place = Self.entryPlace(block, 1, 32) + 8
    let wanted: UInt64 =
      switch target {
      case .itself: block
      case .superblock: 0
      case .journal: 130
      case .bitmap: try #require(store.seals.blocks.first { $0.kind == "bitmap" }).block
      case .sibling: store.image.number(at: place)
      case .otherTree: try #require(store.seals.blocks.first { $0.kind == "names 0" }).block
      case .behindEnd: store.image.byteCount / 1024 + 3
      case .nowhere: 0
      case .largest: .max
      }
    if target == .sibling {
      try device.write(store.image.bytes(place..<place + 24), at: child)
    } else {
      try device.put(wanted, at: child)
    }
    if target != .nowhere, wanted < store.image.byteCount / 1024 {
      let bytes = store.image.bytes(wanted * 1024..<wanted * 1024 + 1024)
      try device.put(bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: wanted) }, at: child + 16)
    }
    try store.seals.seal(device, root)
    try Self.expectDamage(store, device)
  }

  @Test(arguments: [0, 1, 3, 24, 25, 255] as [UInt8])
  func `a tree of another height than its nodes is damage`(_ height: UInt8) throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "inodes 0" })
    let device = store.device()
    let record = Self.entryPlace(store.seals.blocks[index].block, 0, 520) + 8
    try #require(store.image.bytes(record + 56..<record + 57) == [2])
    try device.write([height], at: record + 56)
    try store.seals.seal(device, index)
    try Self.expectDamage(store, device)
  }

  @Test(arguments: [0, 1, .max >> 1] as [UInt64])
  func `a half deleted volume that counts what it has wrongly is given up all the same`(_ count: UInt64) throws {
    let store = try HostileStore(isSharing: true)
    func record(_ block: Seals.Block) -> UInt64 { Self.entryPlace(block.block, 0, 520) + 8 }
    // Each leaf has one inode; this is the deleted one.
    let index = try #require(
      store.seals.blocks.firstIndex {
        $0.kind == "inodes 0" && store.image.bytes(record($0) + 4..<record($0) + 5) == [3]
      })
    let device = store.device()
    for place in [64, 72] as [UInt64] { try device.put(count >> 1, at: record(store.seals.blocks[index]) + place) }
    try store.seals.seal(device, index)
    let findings = try StoreCheck.findings(on: device)
    #expect(
      count == .max >> 1 || findings.contains { $0.kind == .number && $0.text.contains("mapped and") }, "\(findings)")
    let engine = try Engine.open(device, HostileStore.sharingShape.options).engine
    while try engine.dropDeleted() {}
    #expect(try engine.volumeRecords().allSatisfy { $0.record.kind != .deleted })
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  /// What is wrong with a leaf of extents: bytes of an entry, and the number that goes there. The journal leaves entry 9 alone.
  private static let leaves: [(String, entry: UInt64, byte: UInt64, value: UInt64)] = [
    ("keys out of order", 1, 0, 0), ("a key beyond all blocks", 1, 0, 1 << 62), ("the last key", 1, 0, .max),
    ("overlap", 0, 16, 0x3FFF), ("no length", 0, 16, 0), ("the greatest length", 0, 16, 0xFFFF_FFFF),
    ("unknown flags", 0, 16, 1 | 2 << 32), ("reserved and physical", 0, 16, 1 | 1 << 32), ("block 0", 0, 8, 0),
    ("a block of the journal", 9, 8, 130), ("a bitmap", 9, 8, 193), ("behind the device", 9, 8, 1 << 40),
    ("the last block of all", 0, 8, .max), ("sums that overflow", 0, 8, 1 << 62),
  ]

  @Test(arguments: leaves.indices) func `extents that cannot be are damage`(_ number: Int) throws {
    let (_, entry, byte, value) = Self.leaves[number]
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "extents 0" })
    let device = store.device()
    let place = Self.entryPlace(store.seals.blocks[index].block, entry, 24)
    if byte == 8, value == 0 { #expect(store.image.number(at: place + 8) != 0) }
    try device.put(value, at: place + byte)
    try store.seals.seal(device, index)
    try Self.expectDamage(store, device)
  }

  @Test func `two extents that share a block are found`() throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "extents 0" })
    let device = store.device()
    let place = Self.entryPlace(store.seals.blocks[index].block, 0, 24)
    try device.put(store.image.number(at: place + 24 + 8), at: place + 8)
    try store.seals.seal(device, index)
    let finding = "2 references were found, and the refcount tree says 1: volume 'disk0'"
    #expect(try StoreCheck.findings(on: device).contains { $0.text.contains(finding) })
    try Self.use(device)
  }

  @Test func `an extent behind a volume's end is found, and is not served`() throws {
    let store = try HostileStore()
    // The small one, of which the journal has nothing.
    let index = try #require(store.seals.blocks.lastIndex { $0.kind == "inodes 0" })
    let device = store.device()
    let record = Self.entryPlace(store.seals.blocks[index].block, 0, 520) + 8
    try device.put(5000 as UInt64, at: record + 8)
    try store.seals.seal(device, index)
    #expect(try StoreCheck.findings(on: device).contains { $0.kind == .extent && $0.text.contains("passes the end") })
    let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
    let volume = try #require(try engine.openVolume(named: "small"))
    var end: UInt64 = 0
    try volume.forEachExtent(in: 0..<(.max)) { range, _ in
      end = range.upperBound
      return true
    }
    #expect(end == 5000)
    try? engine.close()
    try Self.use(device)
  }

  // MARK: Volumes

  @Test(
    arguments: [(8, .max), (8, 1 << 63), (64, .max), (72, .max), (80, 5), (80, 0xFFFF)] as [(Int, UInt64)])
  func `a volume's record with numbers that cannot be is damage`(_ byte: Int, _ value: UInt64) throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "inodes 0" })
    let device = store.device()
    try device.put(value, at: Self.entryPlace(store.seals.blocks[index].block, 0, 520) + 8 + UInt64(byte))
    try store.seals.seal(device, index)
    try Self.expectDamage(store, device)
  }

  @Test func `a volume of the greatest size is served, and costs no more than what is in it`() throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "inodes 0" })
    let device = store.device()
    try device.put(UInt64(Int64.max), at: Self.entryPlace(store.seals.blocks[index].block, 0, 520) + 8 + 8)
    try store.seals.seal(device, index)
    #expect(try StoreCheck.findings(on: device) == [])
    let counted = FaultyDevice(device)
    let engine = try Engine.open(counted, HostileStore.shape.options).engine
    let volume = try #require(try engine.openVolume(named: "disk0"))
    #expect(volume.byteCount == UInt64(Int64.max))
    var count = 0
    try volume.forEachExtent(in: 0..<volume.byteCount) { _, _ in
      count += 1
      return true
    }
    #expect(count < 300)
    try volume.discard(in: 0..<volume.byteCount)
    try volume.zero(in: 0..<volume.byteCount, keepsSpace: false)
    try engine.close()
    #expect(counted.counts.total < 500)
    #expect(try StoreCheck.findings(on: device) == [])
  }

  @Test(
    arguments: [[], Array("../../etc/passwd".utf8), [0], Array(repeating: 65, count: 255), [10, 27, 91]] as [[UInt8]])
  func `any name that is UTF-8 is a name and nothing else`(_ name: [UInt8]) throws {
    let (store, device) = try Self.rename(name, length: UInt16(name.count))
    let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
    #expect(try engine.volumeRecords().contains { Array($0.record.name.utf8) == name })
    // Its hash is that of another name.
    #expect(try engine.openVolume(named: String(decoding: name, as: UTF8.self)) == nil)
    #expect(throws: Never.self) { _ = try engine.openVolume(named: "disk0") }
    try? engine.close()
    #expect(store.image.byteCount == device.byteCount)
    try Self.use(device)
  }

  @Test(arguments: [([0xFF, 0xFE], 2), ([0xC0, 0xAF], 2), ([65], 256), ([65], 0xFFFF)] as [([UInt8], UInt16)])
  func `a name that is not UTF-8 or too long is damage`(_ name: [UInt8], _ length: UInt16) throws {
    let (_, device) = try Self.rename(name, length: length)
    let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
    // The others are there, and that one is told of.
    let records = try engine.volumeRecords()
    #expect(!records.isEmpty && !records.contains { $0.record.name.utf8.elementsEqual(name) })
    #expect(engine.damage.all.count == 1)
    try? engine.close()
    try Self.use(device)
  }

  private static func rename(_ name: [UInt8], length: UInt16) throws -> (HostileStore, CrashDevice) {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.lastIndex { $0.kind == "inodes 0" })
    let device = store.device()
    let record = entryPlace(store.seals.blocks[index].block, 0, 520) + 8
    try device.put(length, at: record + 82)
    try device.write(name, at: record + 184)
    try store.seals.seal(device, index)
    return (store, device)
  }

  // MARK: Space

  @Test func `a block marked free that something leads to is found, and does not trap who changes it`() throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "bitmap" })
    let bitmap = store.seals.blocks[index]
    let leaf = try #require(store.seals.blocks.first { $0.kind == "extents 0" })
    // The journal has nothing of it.
    let block = store.image.number(at: Self.entryPlace(leaf.block, 9, 24) + 8)
    let bit = block - store.seals.superblock.geometry.firstBlock(ofGroup: 0)
    let device = store.device()
    let place = bitmap.block * 1024 + bit / 8
    let byte = store.image.bytes(place..<place + 1)[0]
    try #require(byte >> UInt8(bit % 8) & 1 == 1)
    try device.write([byte & ~(1 << UInt8(bit % 8))], at: place)
    // The group's record counts one more that is free.
    let record = bitmap.checksumPlace - 4
    try device.put(UInt32(truncatingIfNeeded: store.image.number(at: record)) + 1, at: record)
    try store.seals.seal(device, index)
    #expect(
      try StoreCheck.findings(on: device).contains {
        $0.kind == .bitmap && $0.text.contains("marked as free, and something references it")
      })

    let engine = try Engine.open(device, HostileStore.shape.options).engine
    let volume = try #require(try engine.openVolume(named: "disk0"))
    // Giving up a block that is free contradicts the bitmap: nothing more is written.
    try volume.discard(in: 0..<volume.byteCount)
    #expect(Self.code { try engine.checkpoint() } == .damaged)
    #expect(Self.code { try volume.discard(in: 0..<volume.byteCount) } == .failed)
    try? engine.close()
    try Self.use(device)
  }

  @Test(arguments: [0, 1, 8192, .max] as [UInt32])
  func `a group that counts its free blocks wrong gives none of them away`(_ freeCount: UInt32) throws {
    let store = try HostileStore()
    let index = try #require(store.seals.blocks.firstIndex { $0.kind == "space 0" })
    let device = store.device()
    try device.put(freeCount, at: Self.entryPlace(store.seals.blocks[index].block, 0, 160) + 8)
    try store.seals.seal(device, index)
    #expect(Self.code { _ = try Engine.open(device, HostileStore.shape.options) } == .damaged)
    try Self.use(device)
  }

  // MARK: Sizes

  @Test func `a store cut off anywhere is refused`() throws {
    let store = try HostileStore()
    for byteCount in stride(from: 0, to: store.image.byteCount / 4096 * 4096, by: 4096) {
      let device = CrashDevice(store.image.resized(to: byteCount), records: false)
      let code = Self.code { _ = try Engine.open(device, HostileStore.shape.options) }
      #expect(code == (byteCount < 4096 ? .notAStore : byteCount < 69632 ? code : .damaged), "\(byteCount) bytes")
      #expect(code != nil)
      try Self.use(device)
    }
  }

  @Test func `a file of 8 EiB of zeroes is no store, and that is told at once`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: UInt64(Int64.max)))
    #expect(Self.code { _ = try Engine.open(device, EngineOptions()) } == .notAStore)
    #expect(device.counts.bytesRead <= 8192)
  }

  @Test func `a small store on a device of 2 EiB costs no more than what is in it`() throws {
    let store = try HostileStore()
    let base = CrashDevice(store.image.resized(to: 1 << 61), records: false)
    let device = FaultyDevice(base)
    let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
    #expect(try engine.volumeRecords().count == 4)
    try? engine.close()
    #expect(device.counts.bytesRead < 2 << 20)

    // And as a superblock that says so.
    try base.put(1 << 51 as UInt64, at: store.seals.superblockOffset + 72)
    try store.seals.sealSuperblock(base)
    _ = try StoreCheck.findings(on: device)
    #expect(device.counts.bytesRead < 8 << 20)
  }

  @Test func `a journal that is longer than any journal is damage, whatever the file's length`() throws {
    let store = try HostileStore()
    let base = CrashDevice(store.image.resized(to: 1 << 42), records: false)
    try base.put(1 << 40 as UInt64, at: store.seals.superblockOffset + 80)
    try base.put(1 << 32 as UInt64, at: store.seals.superblockOffset + 72)
    // The other superblock must not stand in.
    try base.write([UInt8](repeating: 0, count: 4096), at: 65536 - store.seals.superblockOffset)
    try store.seals.sealSuperblock(base)
    let device = FaultyDevice(base)
    #expect(Self.code { _ = try Engine.open(device, HostileStore.shape.options, readOnly: true) } == .damaged)
    #expect(device.counts.bytesRead < 1 << 20)
  }

  // MARK: Versions

  @Test(arguments: [(8, 0), (8, 2), (8, 0xFFFF_FFFF), (32, 2), (32, 1 << 63), (32, .max)] as [(UInt64, UInt64)])
  func `a store of a newer version is refused and not written to`(_ byte: UInt64, _ value: UInt64) throws {
    let (device, store) = try Self.flag(byte, value)
    for readOnly in [false, true] {
      #expect(Self.code { _ = try Engine.open(device, HostileStore.shape.options, readOnly: readOnly) } == .newerFormat)
    }
    #expect(device.callCount == 0)
    #expect(store.image.byteCount == device.byteCount)
  }

  @Test(arguments: [1, 1 << 63, .max] as [UInt64])
  func `a store with features that allow reading alone is read and not written to`(_ value: UInt64) throws {
    let (device, store) = try Self.flag(24, value)
    #expect(Self.code { _ = try Engine.open(device, HostileStore.shape.options) } == .readOnlyFormat)
    let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
    let volume = try #require(try engine.openVolume(named: "disk0"))
    try store.ledgers.expectation().disks[0].check { try volume.read(into: $0, at: $1) }
    #expect(Self.code { try volume.discard(in: 0..<1024) } == .readOnly)
    try engine.close()
    #expect(device.callCount == 0)
  }

  @Test func `features that may be unknown are kept`() throws {
    let (device, store) = try Self.flag(16, 0x8000_0000_0000_0001)
    let engine = try Engine.open(device, HostileStore.shape.options).engine
    try engine.close()
    for slot in [0, 65536] as [UInt64] where device.image.number(at: slot + 64) > store.seals.superblock.generation {
      #expect(device.image.number(at: slot + 16) == 0x8000_0000_0000_0001)
    }
  }

  private static func flag(_ byte: UInt64, _ value: UInt64) throws -> (CrashDevice, HostileStore) {
    let store = try HostileStore()
    let device = store.device()
    if byte == 8 {
      try device.put(UInt32(value), at: store.seals.superblockOffset + byte)
    } else {
      try device.put(value, at: store.seals.superblockOffset + byte)
    }
    try store.seals.sealSuperblock(device)
    return (CrashDevice(device.image, maximumByteCount: HostileStore.shape.limitByteCount, records: false), store)
  }

  // MARK: What is expected

  private static func code(_ body: () throws -> Void) -> ExtentFSError.Code? {
    do { try body() } catch { return (error as? ExtentFSError)?.code }
    return nil
  }

  /// The check says what is wrong, the first volume cannot be read whole, and nothing traps.
  private static func expectDamage(_ store: HostileStore, _ device: CrashDevice) throws {
    #expect(try StoreCheck.findings(on: device) != [])
    let code = code {
      let engine = try Engine.open(device, HostileStore.shape.options, readOnly: true).engine
      defer { try? engine.close() }
      let volume = try #require(try engine.openVolume(named: "disk0"))
      var bytes = [UInt8](repeating: 0, count: Int(volume.byteCount))
      try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    }
    #expect(code == .damaged)
    try use(device)
  }

  private static func use(_ device: CrashDevice) throws {
    let counted = FaultyDevice(device)
    try HostileStore.use(counted)
    #expect(counted.counts.bytesRead < 64 << 20)
  }
}
