import Checksums
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Stores that somebody has changed: by accident, or on purpose, with all checksums right.
@Suite(.slow) struct EngineDamageTests {
  private static let mutationCount = getenv("LACUNA_MUTATIONS").flatMap { Int(String(cString: $0)) } ?? 3200
  private static let traces = getenv("LACUNA_CRASH_TRACE") != nil

  /// Uses the store on `device`, or does `body` with it, and holds what that costs against the size of a store of less than
  /// 1 MiB. Time is the thread's own: how long others kept the processors busy does not count.
  private static func bounded(
    _ what: String, _ device: CrashDevice, _ body: (FaultyDevice<CrashDevice>) throws -> Void = { _ in }
  ) throws {
    if traces {
      print(what)
      fflush(nil)
    }
    let counted = FaultyDevice(device)
    let memory = residentByteCount()
    let start = ThreadClock.now()
    do {
      try body(counted)
      try HostileStore.use(counted)
    } catch {
      throw CheckFailure("\(what): \(error)")
    }
    let time = ThreadClock.now() - start
    if time > .seconds(5) { throw CheckFailure("\(what): took \(time) of a processor's time") }
    let counts = counted.counts
    if counts.bytesRead > 64 << 20 { throw CheckFailure("\(what): \(counts.bytesRead) bytes were read") }
    if counts.total > 100_000 { throw CheckFailure("\(what): the device was called \(counts.total) times") }
    let growth = residentByteCount() - memory
    if growth > 256 << 20 { throw CheckFailure("\(what): memory grew by \(growth) bytes") }
  }

  @Test func `bytes that changed give the right data or an error`() throws {
    let store = try HostileStore()
    let image = store.image
    let expectation = store.ledgers.expectation()
    // A change of the newest superblock or of the end of the journal looks as if it was never written.
    let data = StoreGeometry.journalOffset + 65536
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount {
        let device = store.device()
        let offset = (generator.oneIn(4) ? 0 : data) + generator.number(below: image.byteCount - data)
        let change = try Self.change(device, at: offset, &generator)
        try Self.bounded("\(number): \(change)", device) { device in
          do {
            let store = try FaultStore(opening: device, HostileStore.shape)
            defer { store.close() }
            if offset >= data { try store.checkVolumes(expectation) }
          } catch is ExtentFSError {}
        }
      }
    }
  }

  @Test func `of volumes that share, bytes that changed give the right data or an error, whatever is done to others`()
    throws
  {
    let store = try HostileStore(isSharing: true)
    #expect(try StoreCheck.findings(on: store.device()) == [])
    let image = store.image
    let expectation = store.ledgers.expectation()
    let data = StoreGeometry.journalOffset + 65536
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount / 6 {
        let device = store.device()
        let change = try Self.change(device, at: data + generator.number(below: image.byteCount - data), &generator)
        try Self.bounded("\(number): \(change)", device) { device in
          do {
            var shape = HostileStore.sharingShape
            shape.deletionStepNodeCount = nil
            let store = try FaultStore(opening: device, shape)
            defer { store.close() }
            do {
              try store.engine.snapshot([("disk0", "disk0@b"), ("disk2", "disk2@b")], createdSeconds: 0)
              try store.engine.clone("disk1", as: "more", createdSeconds: 0)
              try store.engine.delete(["disk0@a", "clone", "more"], force: true)
              while try store.engine.dropDeleted() {}
            } catch is ExtentFSError {}
            try store.checkVolumes(expectation)
          } catch is ExtentFSError {}
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
      try device.write(bytes, at: block)
    case 2: try device.write([UInt8](repeating: 0, count: 1024), at: block)
    default:
      // Blocks of data that have equal checksums do not exist here.
      let other = 192 * 1024 + generator.number(below: device.byteCount / 1024 - 192) * 1024
      let others = device.image.bytes(other..<other + 1024)
      if generator.oneIn(2) { try device.write(bytes, at: other) }
      try device.write(others, at: block)
    }
    return "change \(kind) of byte \(offset)"
  }

  // MARK: With right checksums

  @Test(arguments: [false, true])
  func `a superblock with any number in it does no harm`(_ isSharing: Bool) throws {
    let store = try HostileStore(isSharing: isSharing)
    let superblock = store.seals.superblockOffset
    var count = 0
    // Of the other store what it alone has.
    let places: [UInt64] =
      isSharing ? [112, 248, 256, 264, 272, 4032, 4040, 4048, 4056] : Array(stride(from: 8, to: 280, by: 8))
    for place in places {
      let old = store.image.number(at: superblock + place)
      for value in HostileStore.boundaries + [old &+ 1, old &- 1] {
        for half in 0..<3 where half == 0 || [8, 56].contains(place) {
          let device = store.device()
          if half == 0 {
            try device.put(value, at: superblock + place)
          } else {
            try device.put(UInt32(truncatingIfNeeded: value), at: superblock + place + UInt64(half - 1) * 4)
          }
          try store.seals.sealSuperblock(device)
          try Self.bounded("word at \(place) is \(value)", device)
          count += 1
        }
      }
    }
    print("superblocks: \(count)")
  }

  @Test(arguments: [false, true])
  func `metadata with any number in it does no harm`(_ isSharing: Bool) throws {
    let store = try HostileStore(isSharing: isSharing)
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount / (isSharing ? 4 : 1) {
        let device = store.device()
        var changes: [String] = []
        repeat { changes.append(try store.changeMetadata(device, &generator)) } while generator.oneIn(3)
        try Self.bounded("\(number): \(changes)", device)
      }
    }
  }

  @Test func `a journal with any number in it does no harm`() throws {
    let store = try HostileStore()
    let records = store.seals.records(store.image)
    try #require(records.count > 5)
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount / 2 {
        let device = store.device()
        var changes: [String] = []
        repeat {
          changes.append(try store.changeRecord(records, device, &generator))
        } while generator.oneIn(3)
        try Self.bounded("\(number): \(changes)", device)
      }
    }
  }

  @Test func `a journal of any records does no harm`() throws {
    let store = try HostileStore()
    try withSeededGenerator { generator in
      for number in 0..<Self.mutationCount / 2 {
        let device = store.device()
        var forge = JournalForge(store.seals)
        var changes: [String] = []
        repeat { changes.append(forge.appendRandom(&generator)) } while !generator.oneIn(6)
        try forge.write(to: device)
        try Self.bounded("\(number): \(changes)", device)
      }
    }
  }
}

extension HostileStore {
  /// Changes a number of a metadata block, and at times an entry, and makes the checksums right; returns what.
  func changeMetadata(_ device: CrashDevice, _ generator: inout SeededGenerator) throws -> String {
    let index = generator.number(below: seals.blocks.count)
    let block = seals.blocks[index]
    let start = block.block * 1024
    // Most fields that matter are near the start.
    let place = start + 8 * generator.number(below: generator.oneIn(2) ? 20 : 128)
    let old = device.image.number(at: place)
    let value: UInt64
    switch generator.number(below: 5) {
    case 0: value = Self.boundaries[generator.number(below: Self.boundaries.count)]
    case 1: value = old &+ 1
    case 2: value = old ^ 1 << UInt64(generator.number(below: 64))
    case 3: value = old &- 1
    default:
      let other = seals.blocks[generator.number(below: seals.blocks.count)].block
      value =
        generator.oneIn(2) ? other : device.image.number(at: other * 1024 + 64 + 8 * generator.number(below: 12))
    }
    try device.put(value, at: place)
    if generator.oneIn(4) {
      // A copy of another pointer or entry: cycles, two parents, overlaps.
      let other = seals.blocks[generator.number(below: seals.blocks.count)].block * 1024 + 64
      let from = other + 8 * generator.number(below: 8)
      try device.write(device.image.bytes(from..<from + 24), at: start + 64 + 24 * generator.number(below: 8) + 8)
    }
    try seals.seal(device, index)
    return "\(block.kind) \(block.block), byte \(place - start): \(old) -> \(value)"
  }

  /// Changes a number of a record of the journal, and makes its checksum right; returns what.
  func changeRecord(
    _ records: [Range<UInt64>], _ device: CrashDevice, _ generator: inout SeededGenerator
  ) throws -> String {
    let record = records[generator.number(below: records.count)]
    let place = record.lowerBound + 8 * generator.number(below: min(record.upperBound - record.lowerBound, 88) / 8)
    let old = device.image.number(at: place)
    let value =
      switch generator.number(below: 4) {
      case 0: Self.boundaries[generator.number(below: Self.boundaries.count)]
      case 1: old ^ 1 << UInt64(generator.number(below: 64))
      case 2: old &+ 1
      default:
        image.number(at: records[generator.number(below: records.count)].lowerBound + (place - record.lowerBound))
      }
    try device.put(value, at: place)
    let bytes = device.image.bytes(record.lowerBound + 4..<record.upperBound)
    try device.put(bytes.withUnsafeBytes { CRC32C.checksum($0) }, at: record.lowerBound)
    return "record at \(record.lowerBound), byte \(place - record.lowerBound): \(old) -> \(value)"
  }
}

/// How much memory the process has now.
private func residentByteCount() -> Int {
  let file = open("/proc/self/statm", O_RDONLY)
  defer { close(file) }
  let text = withUnsafeTemporaryAllocation(byteCount: 128, alignment: 1) { buffer in
    String(decoding: buffer[..<max(read(file, buffer.baseAddress, buffer.count), 0)], as: UTF8.self)
  }
  return (text.split(separator: " ").dropFirst().first.flatMap { Int($0) } ?? 0) * 4096
}
