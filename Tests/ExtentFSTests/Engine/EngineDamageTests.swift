import Bytes
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Stores that somebody has changed: by accident, or on purpose, with all checksums right.
@Suite struct EngineDamageTests {
  private static let mutationCount = getenv("LACUNA_MUTATIONS").flatMap { Int(String(cString: $0)) } ?? 100
  private static let traces = getenv("LACUNA_CRASH_TRACE") != nil
  private static let boundaries: [UInt64] = [
    0, 1, 2, 255, 1 << 31 - 1, 1 << 31, 1 << 32 - 1, 1 << 32, 1 << 53, 1 << 62 - 1, 1 << 62, 1 << 63 - 1, 1 << 63,
    .max - 1,
    .max,
  ]

  private static var shape: CrashShape {
    var shape = CrashShape()
    shape.limitByteCount = 900 << 10
    shape.diskByteCount = 200 * 1024
    shape.volumeCount = 3
    shape.mayBeFull = true
    return shape
  }

  /// A store with trees of two levels, inline extents, and a journal that is live.
  private static func make() throws -> (image: MediumImage, ledgers: CrashLedgers) {
    let device = CrashDevice(byteCount: 0, maximumByteCount: shape.limitByteCount)
    try FaultStore.format(device, shape)
    let ledgers = CrashLedgers(shape) { device.callCount }
    var store = try FaultStore(opening: device, shape)
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<150 { try store.step(ledgers, &generator) }
    try store.engine.checkpoint()
    for _ in 0..<12 { try store.step(ledgers, &generator) }
    try store.volumes[0].flush()
    // Only a record behind a flush says that it succeeded: until then, data that changed looks as if it had never arrived.
    let last = ledgers.disks[0].willZero(0..<1)
    try store.volumes[0].discard(in: 0..<1024)
    ledgers.disks[0].didFinish(last)
    return (device.image, ledgers)
  }

  /// Does all that can be done with a store; an error that is told is a right answer.
  private static func use(_ device: CrashDevice) throws {
    if traces { fflush(nil) }
    func tolerant(_ body: () throws -> Void) throws {
      do { try body() } catch is ExtentFSError {} catch is CheckFailure {}
    }
    try tolerant { _ = try StoreCheck.findings(on: device) }
    for readOnly in [true, false] {
      var options = shape.options
      options.cacheByteCount = 1 << 16
      var opened: Engine<CrashDevice>?
      try tolerant { opened = try Engine.open(device, options, readOnly: readOnly).engine }
      guard let engine = opened else { continue }
      var volumes: [DiskVolume<CrashDevice>] = []
      for number in 0..<3 {
        try tolerant { if let volume = try engine.volume(named: "disk\(number)") { volumes.append(volume) } }
      }
      try tolerant { _ = try engine.volumeRecords() }
      for volume in volumes {
        let size = volume.byteCount
        var buffer = [UInt8](repeating: 0, count: 4096)
        for offset in stride(from: 0, to: min(size, 1 << 18), by: 4096) {
          let count = Int(min(4096, size - offset))
          try tolerant {
            try buffer.withUnsafeMutableBytes { try volume.read(into: .init(rebasing: $0[..<count]), at: offset) }
          }
        }
        try tolerant {
          var count = 0
          try volume.forEachExtent(in: 0..<size) { _, _ in
            count += 1
            return count < 10000
          }
        }
        if !readOnly {
          for offset in [0, 5000, 100_000] as [UInt64] where offset + 4096 <= size {
            try tolerant { try buffer.withUnsafeBytes { try volume.write($0, at: offset) } }
          }
          try tolerant { try volume.discard(in: 0..<min(size, 150_000)) }
          try tolerant { try volume.flush() }
        }
      }
      if !readOnly {
        try tolerant { try engine.checkpoint() }
        try tolerant { _ = try engine.createVolume(named: "new", byteCount: 5000, createdSeconds: 0) }
      }
      try? engine.close()
    }
    try tolerant { _ = try StoreCheck.findings(on: device) }
  }

  private static func bounded(_ what: String, _ body: () throws -> Void) throws {
    if traces { print(what) }
    let clock = ContinuousClock()
    let time = try clock.measure {
      do { try body() } catch { throw CheckFailure("\(what): \(error)") }
    }
    if time > .seconds(20) { throw CheckFailure("\(what): took \(time)") }
  }

  @Test func `bytes that changed give the right data or an error`() throws {
    let (image, ledgers) = try Self.make()
    let expectation = ledgers.expectation()
    // A change of the newest superblock or of the end of the journal looks as if it was never written.
    let data = StoreGeometry.journalOffset + 65536
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount {
        let device = CrashDevice(image, maximumByteCount: Self.shape.limitByteCount, records: false)
        let offset = (generator.oneIn(4) ? 0 : data) + generator.number(below: image.byteCount - data)
        let change = try Self.change(device, at: offset, &generator)
        try Self.bounded("\(number): \(change)") {
          do {
            let store = try FaultStore(opening: device, Self.shape)
            defer { store.close() }
            if offset >= data { try store.checkVolumes(expectation) }
          } catch is ExtentFSError {}
          try Self.use(device)
        }
      }
    }
  }

  /// Flips a bit, or zeroes, swaps or copies a block; returns what.
  private static func change(
    _ device: CrashDevice, at offset: UInt64, _ generator: inout SeededGenerator
  ) throws -> String {
    let block = offset / 1024 * 1024
    var bytes = device.image.bytes(block..<block + 1024)
    let kind = generator.number(below: 4)
    switch kind {
    case 0, 1:
      bytes[Int(offset - block)] ^= 1 << UInt8(generator.number(below: 8))
      try write(bytes, device, block)
    case 2: try write([UInt8](repeating: 0, count: 1024), device, block)
    default:
      // Blocks of data that have equal checksums do not exist here.
      let other = 192 * 1024 + generator.number(below: device.byteCount / 1024 - 192) * 1024
      let others = device.image.bytes(other..<other + 1024)
      if generator.oneIn(2) { try write(bytes, device, other) }
      try write(others, device, block)
    }
    return "change \(kind) of byte \(offset)"
  }

  private static func write(_ bytes: [UInt8], _ device: CrashDevice, _ offset: UInt64) throws {
    try bytes.withUnsafeBytes { try device.write($0, at: offset) }
  }

  // MARK: With right checksums

  @Test func `a superblock with any number in it does no harm`() throws {
    let image = try Self.make().image
    let seals = try Seals(image)
    var count = 0
    // All of them in a long run.
    let step = Self.mutationCount < 1000 ? 5 : 1
    var skipped = Int.random(in: 0..<step)
    for place in stride(from: 8, to: 280, by: 8) {
      for value in Self.boundaries + [Self.number(image, seals.superblockOffset + UInt64(place)) &+ 1] {
        for half in [0, 1, 2] where half == 0 || [8, 56].contains(place) {
          skipped += 1
          if skipped % step != 0 { continue }
          let device = CrashDevice(image, maximumByteCount: Self.shape.limitByteCount, records: false)
          var bytes = image.bytes(seals.superblockOffset + UInt64(place)..<seals.superblockOffset + UInt64(place) + 8)
          let new = withUnsafeBytes(of: value.littleEndian) { Array($0) }
          if half == 0 { bytes = new } else { bytes.replaceSubrange((half - 1) * 4..<half * 4, with: new[0..<4]) }
          try Self.write(bytes, device, seals.superblockOffset + UInt64(place))
          try seals.sealSuperblock(device)
          try Self.bounded("word at \(place) is \(value)") { try Self.use(device) }
          count += 1
        }
      }
    }
    print("superblocks: \(count)")
  }

  private static func number(_ image: MediumImage, _ offset: UInt64) -> UInt64 {
    image.bytes(offset..<offset + 8).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
  }

  @Test func `metadata with any number in it does no harm`() throws {
    let image = try Self.make().image
    let seals = try Seals(image)
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount {
        let device = CrashDevice(image, maximumByteCount: Self.shape.limitByteCount, records: false)
        var changes: [String] = []
        repeat {
          let index = generator.number(below: seals.blocks.count)
          let block = seals.blocks[index]
          let start = block.block * 1024
          // Fields are at multiples of four, most of them of eight, and near the start.
          let place =
            start + generator.number(below: generator.oneIn(2) ? 160 : 1024 / 4) / 8 * 8 + 8
            * generator.number(below: 20)
          let old = Self.number(device.image, min(place, start + 1016))
          let value: UInt64
          switch generator.number(below: 5) {
          case 0: value = Self.boundaries[generator.number(below: Self.boundaries.count)]
          case 1: value = old &+ 1
          case 2: value = old ^ 1 << UInt64(generator.number(below: 64))
          case 3: value = old &- 1
          default:
            let other = seals.blocks[generator.number(below: seals.blocks.count)].block
            value =
              generator.oneIn(2)
              ? other : Self.number(device.image, other * 1024 + 64 + 8 * generator.number(below: 12))
          }
          try Self.write(withUnsafeBytes(of: value.littleEndian) { Array($0) }, device, min(place, start + 1016))
          if generator.oneIn(4) {
            // A copy of another pointer or entry: cycles, two parents, overlaps.
            let other = seals.blocks[generator.number(below: seals.blocks.count)].block * 1024 + 64
            let from = other + 8 * generator.number(below: 8)
            try Self.write(
              device.image.bytes(from..<from + 24), device, start + 64 + 24 * generator.number(below: 8) + 8)
          }
          try seals.seal(device, index)
          changes.append("\(block.kind) \(block.block), byte \(place - start): \(old) -> \(value)")
        } while generator.oneIn(3)
        try Self.bounded("\(number): \(changes)") { try Self.use(device) }
      }
    }
  }

  @Test func `a journal with any number in it does no harm`() throws {
    let image = try Self.make().image
    let seals = try Seals(image)
    let records = seals.records(image)
    try #require(records.count > 5)
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount {
        let device = CrashDevice(image, maximumByteCount: Self.shape.limitByteCount, records: false)
        let record = records[generator.number(below: records.count)]
        let place = record.lowerBound + 8 * generator.number(below: min(record.upperBound - record.lowerBound, 88) / 8)
        let old = Self.number(image, place)
        let value =
          switch generator.number(below: 4) {
          case 0: Self.boundaries[generator.number(below: Self.boundaries.count)]
          case 1: old ^ 1 << UInt64(generator.number(below: 64))
          case 2: old &+ 1
          default:
            Self.number(image, records[generator.number(below: records.count)].lowerBound + (place - record.lowerBound))
          }
        try Self.write(withUnsafeBytes(of: value.littleEndian) { Array($0) }, device, place)
        let bytes = device.image.bytes(record.lowerBound + 4..<record.upperBound)
        let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
        try Self.write(withUnsafeBytes(of: sum.littleEndian) { Array($0) }, device, record.lowerBound)
        try Self.bounded(
          "\(number): record at \(record.lowerBound), byte \(place - record.lowerBound): \(old) -> \(value)"
        ) {
          try Self.use(device)
        }
      }
    }
  }
}

/// Where the checksum of each metadata block of a store is, so that it can be made right again.
struct Seals {
  struct Block {
    var block: UInt64
    var kind: String
    /// Where its checksum is, in bytes from the device's start.
    var checksumPlace: UInt64
    /// The block that its checksum is in; nil for the superblock.
    var parent: Int?
  }

  private(set) var blocks: [Block] = []
  let superblockOffset: UInt64
  private let superblock: Superblock
  private let image: MediumImage
  private let nodes: NodeCache<CrashDevice>

  init(_ image: MediumImage) throws {
    self.image = image
    let slots = try (0..<2).map { slot in
      let start = StoreGeometry.superblockOffset(ofSlot: slot)
      return (start, try Superblock(decoding: image.bytes(start..<start + 4096).span.bytes))
    }
    let newest = slots[0].1.generation > slots[1].1.generation ? slots[0] : slots[1]
    (superblockOffset, superblock) = newest
    nodes = NodeCache(
      device: CrashDevice(image, records: false), blockSize: superblock.geometry.blockSize, byteLimit: 1 << 20)
    try add(superblock.names, .names, at: superblockOffset + 184, parent: nil)
    try add(superblock.inodes, .inodes, at: superblockOffset + 152, parent: nil)
    try add(superblock.space, .space, at: superblockOffset + 216, parent: nil)
  }

  private mutating func add(
    _ root: TreeRoot, _ kind: NodeKind, owner: UInt64 = 0, at place: UInt64, parent: Int?
  ) throws {
    if !root.isEmpty { try add(try nodes.root(root, kind: kind, owner: owner), at: place + 16, parent: parent) }
  }

  private mutating func add(_ node: Node, at place: UInt64, parent: Int?) throws {
    blocks.append(
      Block(block: node.pointer.block, kind: "\(node.kind) \(node.level)", checksumPlace: place, parent: parent))
    let index = blocks.count - 1
    let entryByteCount = UInt64(8 + (node.level == 0 ? node.kind.valueByteCount : BlockPointer.encodedByteCount))
    for entry in 0..<node.count {
      let place = node.pointer.block * 1024 + 64 + UInt64(entry) * entryByteCount + 8
      if node.level > 0 {
        try add(try nodes.child(of: node, at: entry, upper: nil).node, at: place + 16, parent: index)
      } else if node.kind == .inodes {
        let record = try node.withValue(at: entry) { try InodeRecord(decoding: $0, at: 0) }
        try add(record.extents, .extents, owner: node.key(at: entry), at: place + 32, parent: index)
      } else if node.kind == .space {
        let record = try node.withValue(at: entry) { try GroupRecord(decoding: $0, at: 0) }
        add(record, ofGroup: node.key(at: entry), at: place, parent: index)
      }
    }
  }

  private mutating func add(_ record: GroupRecord, ofGroup group: UInt64, at place: UInt64, parent: Int) {
    let geometry = superblock.geometry
    blocks.append(
      Block(
        block: geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot), kind: "bitmap", checksumPlace: place + 4,
        parent: parent))
    for page in 0..<StoreGeometry.checksumBlocksPerGroup where record.checksumPresent >> UInt32(page) & 1 == 1 {
      let slot = Int(record.checksumSlots >> UInt32(page) & 1)
      blocks.append(
        Block(
          block: geometry.checksumBlock(ofGroup: group, index: page, slot: slot), kind: "checksums",
          checksumPlace: place + 24 + 4 * UInt64(page), parent: parent))
    }
  }

  /// Makes the checksums right from block `index` up to the superblock.
  func seal(_ device: CrashDevice, _ index: Int) throws {
    var next: Int? = index
    while let index = next {
      let block = blocks[index]
      let bytes = device.image.bytes(block.block * 1024..<block.block * 1024 + 1024)
      let sum = bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: block.block) }
      try withUnsafeBytes(of: sum.littleEndian) { try device.write($0, at: block.checksumPlace) }
      next = block.parent
    }
    try sealSuperblock(device)
  }

  func sealSuperblock(_ device: CrashDevice) throws {
    var bytes = device.image.bytes(superblockOffset..<superblockOffset + 4096)
    bytes.replaceSubrange(12..<16, with: [0, 0, 0, 0])
    let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
    try withUnsafeBytes(of: sum.littleEndian) { try device.write($0, at: superblockOffset + 12) }
  }

  /// The records of the journal that belong to the newest epoch.
  func records(_ image: MediumImage) -> [Range<UInt64>] {
    let ring = image.bytes(StoreGeometry.journalOffset..<StoreGeometry.journalOffset + 65536)
    var found: [Range<UInt64>] = []
    ring.withUnsafeBytes { bytes in
      for offset in stride(from: 0, to: bytes.count - 48, by: 8) {
        func number(_ place: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: offset + place, as: UInt64.self) }
        let count = Int(number(0) >> 32)
        guard number(8) == superblock.uuid.tag, number(16) == superblock.journalEpoch,
          number(24) >= superblock.journalTailSequence, count >= 48, offset + count <= bytes.count
        else { continue }
        let start = StoreGeometry.journalOffset + UInt64(offset)
        found.append(start..<start + UInt64(count))
      }
    }
    return found
  }
}
