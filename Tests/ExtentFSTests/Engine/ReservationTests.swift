import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Zeroes that keep their space: what is promised is there when it is asked for.
@Suite(.slow) struct ReservationTests {
  /// A store with one volume that is larger than the store may become.
  private struct Fixture {
    static let block = 1024
    let device: MemoryDevice
    let options: EngineOptions
    private(set) var engine: Engine
    private(set) var volume: DiskVolume

    init(
      limitByteCount: UInt64?, volumeByteCount: UInt64 = 64 << 20, journalByteCount: UInt64 = 65536,
      blockByteCount: Int = block
    ) throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 1 << 30)
      var format = FormatOptions()
      format.blockByteCount = blockByteCount
      format.journalByteCount = journalByteCount
      try Engine.format(device, format)
      var options = EngineOptions()
      options.limitByteCount = limitByteCount
      self.options = options
      engine = try Engine.open(device, options).engine
      volume = try engine.createVolume(named: "disk", byteCount: volumeByteCount, createdSeconds: 0)
    }

    /// Opens the store as after the death of the process.
    mutating func reopen() throws {
      engine = try Engine.open(device, options).engine
      volume = try #require(try engine.openVolume(named: "disk"))
    }

    func write(_ block: Int, count: Int = 1) throws {
      let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: block % 250 + 1), count: count * Self.block)
      try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(block * Self.block)) }
    }

    func bytes(_ blocks: Range<Int>) -> Range<UInt64> {
      UInt64(blocks.lowerBound * Self.block)..<UInt64(blocks.upperBound * Self.block)
    }

    func reserve(_ blocks: Range<Int>) throws { try volume.zero(in: bytes(blocks), keepsSpace: true) }

    func trim(_ blocks: Range<Int>) throws { try volume.discard(in: bytes(blocks)) }

    /// Writes single blocks from `start` on, `step` apart, until the store is full; how many.
    func fill(from start: Int, step: Int = 1) throws -> Int {
      var count = 0
      while try !isFull({ try write(start + count * step) }) { count += 1 }
      return count
    }

    func isFull(_ body: () throws -> Void) throws -> Bool {
      do {
        try body()
        return false
      } catch let error as ExtentFSError where error.code == .outOfSpace {
        return true
      }
    }

    /// How many blocks the volume's view has as reserved.
    func reservedCount() throws -> UInt64 {
      var count: UInt64 = 0
      try volume.forEachExtent(in: 0..<volume.byteCount) { range, kind in
        if kind == .unwritten { count += (range.upperBound - range.lowerBound) / UInt64(Self.block) }
        return true
      }
      return count
    }

    func check() throws {
      try engine.checkpoint()
      let stored = try engine.volumeRecords().reduce(0) { $0 + $1.record.reservedBlocks }
      let reserved = try reservedCount()
      #expect(engine.promisedBlockCount == stored && stored == reserved)
      #expect(try StoreCheck.findings(on: device) == [])
    }
  }

  @Test(arguments: [1, 2, 7])
  func `what is reserved can be written on a store that is full, whatever the order`(_ step: Int) throws {
    try withSeededGenerator { generator in
      var store = try Fixture(limitByteCount: 4 << 20)
      try store.reserve(1000..<1800)
      #expect(try store.isFull { try store.reserve(10_000..<20_000) })
      let count = try store.fill(from: 2000, step: step)
      #expect(count > 500)
      var blocks = Array(1000..<1800)
      blocks.shuffle(using: &generator)
      for block in blocks {
        do { try store.write(block) } catch { throw CheckFailure("block \(block) was promised: \(error)") }
        switch generator.number(below: 60) {
        case 0: try store.volume.flush()
        case 1: try store.engine.checkpoint()
        case 2: try store.reopen()
        case 3: _ = try store.fill(from: 20_000)
        default: break
        }
      }
      #expect(try store.reservedCount() == 0)
      try store.check()
    }
  }

  @Test func `a part of a block that is reserved can be written on a store that is full`() throws {
    let store = try Fixture(limitByteCount: 2 << 20)
    try store.reserve(0..<100)
    _ = try store.fill(from: 200)
    for block in 0..<100 {
      try [7, 8, 9].withUnsafeBytes { try store.volume.write($0, at: UInt64(block * 1024 + 99)) }
    }
    try store.check()
  }

  @Test func `reserving again what is reserved or holds data costs nothing, and a trim gives the promise back`() throws
  {
    var store = try Fixture(limitByteCount: 2 << 20)
    try store.reserve(0..<300)
    let count = try store.fill(from: 1000)
    try #require(count > 100)
    for _ in 0..<3 {
      try store.reserve(0..<300)
      try store.reserve(100..<200)
      try store.reserve(1000..<1050)
      #expect(try store.isFull { try store.reserve(10_000..<10_100) })
      try store.reopen()
    }
    try store.check()
    #expect(store.engine.promisedBlockCount == 350)
    try store.trim(0..<300)
    try store.reserve(10_000..<10_200)
    try store.check()
    #expect(store.engine.promisedBlockCount == 250)
    for block in 10_000..<10_200 { try store.write(block) }
    try store.check()
    #expect(store.engine.promisedBlockCount == 50)
  }

  // The larger one always has room, so that each promise counts in full at first; the smaller one is full at times.
  @Test(arguments: [64, 6] as [UInt64])
  func `promises are never counted too low, and exactly after a checkpoint or a recovery`(_ mebibytes: UInt64) throws {
    try withSeededGenerator { generator in
      var store = try Fixture(limitByteCount: mebibytes << 20, volumeByteCount: 4 << 20)
      for _ in 0..<1500 {
        let range = generator.range(below: 4096, longest: generator.oneIn(4) ? 200 : 8)
        let blocks = Int(range.lowerBound)..<Int(range.upperBound)
        switch generator.number(below: 12) {
        case 0..<5: _ = try store.isFull { try store.write(blocks.lowerBound, count: blocks.count) }
        case 5..<9: _ = try store.isFull { try store.reserve(blocks) }
        case 9, 10: try store.trim(blocks)
        default:
          switch generator.number(below: 4) {
          case 0: try store.reopen()
          case 1: try store.volume.flush()
          default: try store.check()
          }
        }
        if mebibytes == 64 { #expect(store.engine.promisedBlockCount >= (try store.reservedCount())) }
      }
      try store.reopen()
      try store.check()
    }
  }

  @Test func `a store without a limit promises what is asked for, at once`() throws {
    // More than any file can have, and in blocks so large that it is not too many extents for a test.
    let pebibyte: UInt64 = 1 << 50
    var store = try Fixture(limitByteCount: nil, volumeByteCount: UInt64(Int64.max), blockByteCount: 65536)
    let others = try (0..<3).map {
      try store.engine.createVolume(named: "other-\($0)", byteCount: UInt64(Int64.max), createdSeconds: 0)
    }
    let time = try ContinuousClock().measure {
      for number in 0..<8 as Range<UInt64> {
        try store.volume.zero(in: number * pebibyte..<(number + 1) * pebibyte, keepsSpace: true)
      }
      for other in others { try other.zero(in: 0..<other.byteCount, keepsSpace: true) }
    }
    #expect(time < .seconds(1), "\(time)")
    try store.write(12_345)
    try store.engine.checkpoint()
    try store.reopen()
    #expect(try StoreCheck.findings(on: store.device) == [])
    try store.volume.discard(in: 0..<store.volume.byteCount)
    try store.engine.checkpoint()
    #expect(try store.reservedCount() == 0)
  }

  @Test func `many threads that write what is reserved all get their space`() throws {
    let store = try Fixture(limitByteCount: 3 << 20)
    try store.reserve(0..<800)
    _ = try store.fill(from: 2000)
    try inThreads(4) { thread in
      for block in stride(from: thread, to: 800, by: 4) { try store.write(block) }
    }
    try store.check()
    #expect(store.engine.promisedBlockCount == 0)
  }

  @Test func `a device that cannot grow promises no more than it has`() throws {
    let device = FixedDevice(base: try MemoryDevice(byteCount: 3 << 20))
    var format = FormatOptions()
    format.blockByteCount = Fixture.block
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    let volume = try engine.createVolume(named: "disk", byteCount: 1 << 40, createdSeconds: 0)
    let error = #expect(throws: ExtentFSError.self) { try volume.zero(in: 0..<3 << 20, keepsSpace: true) }
    #expect(error?.code == .outOfSpace)
    try volume.zero(in: 0..<1 << 20, keepsSpace: true)
    try volume.zero(in: 0..<1 << 20, keepsSpace: true)
    let bytes = [UInt8](repeating: 1, count: 4096)
    #expect(throws: ExtentFSError.self) {
      for offset in stride(from: 2 << 20 as UInt64, to: 1 << 30, by: 4096) {
        try bytes.withUnsafeBytes { try volume.write($0, at: offset) }
      }
    }
    for offset in stride(from: 0 as UInt64, to: 1 << 20, by: 4096) {
      try bytes.withUnsafeBytes { try volume.write($0, at: offset) }
    }
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  // MARK: The reserve of checkpoints

  @Test(arguments: [65536, 1 << 20] as [UInt64])
  func `trims and zeroes, flushes and checkpoints succeed on a full store, however its extents lie`(
    _ journalByteCount: UInt64
  ) throws {
    try withSeededGenerator { generator in
      for round in 0..<(getenv("LACUNA_HUNT_SEEDS") == nil ? 2 : 20) {
        let limit = UInt64(1500 + generator.number(below: 6000)) * 1024 + journalByteCount
        var store = try Fixture(limitByteCount: limit, journalByteCount: journalByteCount)
        // Each second block alone, so that no extent joins another; or whole runs, which trims then cut.
        let step = 1 + generator.number(below: 3)
        let end = try store.fill(from: 0, step: step) * step
        do {
          for number in 0..<4000 {
            let start = generator.number(below: end)
            let count = generator.oneIn(10) ? 1 + generator.number(below: 50) : 1
            switch generator.number(below: 200) {
            case 0..<90: try store.trim(start..<start + count)
            case 90..<150: try store.volume.zero(in: store.bytes(start..<start + count), keepsSpace: false)
            case 150..<190: _ = try store.isFull { try store.reserve(start..<start + count) }
            case 190..<194: try store.volume.flush()
            case 194..<196: try store.engine.checkpoint()
            case 196: try store.reopen()
            default: _ = try store.fill(from: start)
            }
            if number % 1000 == 999 { try store.check() }
          }
          try store.check()
          try store.engine.close()
        } catch {
          throw CheckFailure("round \(round), \(limit) bytes, step \(step): \(error)")
        }
      }
    }
  }
}

/// A device of a fixed length, as a block device is.
private struct FixedDevice: BlockDevice {
  let base: MemoryDevice
  var byteCount: UInt64 { base.byteCount }
  var canGrow: Bool { false }
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.read(into: buffer, at: offset)
  }
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.write(buffer, at: offset)
  }
  func sync() throws(DeviceError) {}
  func discard(_ range: Range<UInt64>) throws(DeviceError) { try base.discard(range) }
  func grow(to byteCount: UInt64) throws(DeviceError) { throw DeviceError(operation: .grow, errno: EOPNOTSUPP) }
}
