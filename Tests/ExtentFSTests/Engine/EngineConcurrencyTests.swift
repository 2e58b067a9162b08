import Atomics
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Many threads on the volumes of one store, while checkpoints run all the time and blocks are used again.
@Suite(.slow) struct EngineConcurrencyTests {
  private static let unit = 512
  private static let unitCount = 400
  private static let rounds = getenv("LACUNA_HUNT_SEEDS") == nil ? 250 : 4000

  /// 512 bytes that say which volume and place they are for, and which write they are.
  private static func stamp(_ volume: Int, _ unit: Int, _ write: UInt64) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Self.unit)
    bytes.withUnsafeMutableBytes { buffer in
      for word in 0..<Self.unit / 32 {
        buffer.storeBytes(of: UInt64(volume) << 32 | UInt64(unit), toByteOffset: word * 32, as: UInt64.self)
        buffer.storeBytes(of: write, toByteOffset: word * 32 + 8, as: UInt64.self)
        buffer.storeBytes(of: ~write, toByteOffset: word * 32 + 16, as: UInt64.self)
        buffer.storeBytes(of: UInt64(word) | 1 << 40, toByteOffset: word * 32 + 24, as: UInt64.self)
      }
    }
    return bytes
  }

  /// The write that a unit has a whole stamp of; 0 for zeroes.
  private static func write(in bytes: ArraySlice<UInt8>, _ volume: Int, _ unit: Int) throws -> UInt64 {
    if bytes.allSatisfy({ $0 == 0 }) { return 0 }
    let write = bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self) }
    guard Array(bytes) == stamp(volume, unit, write) else {
      throw CheckFailure("unit \(unit) of volume \(volume) holds something else")
    }
    return write
  }

  private typealias Volume = DiskVolume

  private struct Fixture: Sendable {
    let device: MemoryDevice
    let engine: Engine
    let volumes: [Volume]

    init() throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 65536
      try Engine.format(device, format)
      var options = EngineOptions()
      // Little more than the volumes need: blocks are used again soon.
      options.limitByteCount = 2 << 20
      options.cacheByteCount = 1 << 16
      let engine = try Engine.open(device, options).engine
      self.engine = engine
      volumes = try (0..<2).map { number in
        try engine.createVolume(
          named: "disk\(number)", byteCount: UInt64(EngineConcurrencyTests.unitCount * EngineConcurrencyTests.unit),
          createdSeconds: 0)
      }
    }
  }

  /// Each thread owns every fourth unit of the first half, so that blocks have several owners, and finds there exactly what
  /// it wrote last. The second half is everyone's, and has whole stamps.
  @Test func `no update is lost and no unit is torn while checkpoints run`() throws {
    let fixture = try Fixture()
    let isOver = ManagedAtomic(false)
    let writerCount = 4
    let left = ManagedAtomic(writerCount)
    let seed = try withSeededGenerator { $0.next() }
    let writers = (0..<writerCount).map { thread in
      { @Sendable () throws -> Void in
        defer { if left.wrappingDecrementThenLoad(ordering: .relaxed) == 0 { isOver.store(true, ordering: .relaxed) } }
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        var owned = [[UInt64]](repeating: Array(repeating: 0, count: Self.unitCount), count: 2)
        for round in 1...Self.rounds {
          let write = UInt64(round) << 8 | UInt64(thread)
          let number = generator.number(below: 2)
          let volume = fixture.volumes[number]
          if generator.oneIn(2) {
            try Self.changeOwn(volume, number, thread, write, &owned[number], &generator)
          } else {
            try Self.changeShared(volume, number, write, &generator)
          }
        }
        for number in 0..<2 {
          for unit in stride(from: thread, to: Self.unitCount / 2, by: 4) {
            try Self.expect(fixture.volumes[number], number, unit, owned[number][unit])
          }
        }
      }
    }
    let reader = { @Sendable () throws -> Void in
      var generator = SeededGenerator(seed: seed ^ 77)
      while !isOver.load(ordering: .relaxed) {
        let number = generator.number(below: 2)
        let units = generator.range(below: UInt64(Self.unitCount), longest: 30)
        _ = try Self.read(fixture.volumes[number], number, Int(units.lowerBound)..<Int(units.upperBound))
        try fixture.volumes[number].forEachExtent(in: 0..<UInt64(Self.unitCount * Self.unit)) { _, _ in true }
      }
    }
    let checkpoints = { @Sendable () throws -> Void in
      while !isOver.load(ordering: .relaxed) { try fixture.engine.checkpoint() }
    }
    let flushes = { @Sendable () throws -> Void in
      while !isOver.load(ordering: .relaxed) {
        try fixture.volumes[0].flush()
        _ = try fixture.engine.openVolume(named: "disk1")
        _ = try fixture.engine.volumeRecords()
      }
    }
    do {
      try inThreads(writers + [reader, reader, checkpoints, flushes])
    } catch {
      isOver.store(true, ordering: .relaxed)
      throw error
    }
    try fixture.engine.close()
    #expect(try StoreCheck.findings(on: fixture.device) == [])
  }

  /// What is overwritten is free after a checkpoint, but not as long as somebody reads it: a writer that finds the store full
  /// waits for those who are slow.
  @Test func `a full store waits for a slow reader`() throws {
    let fixture = try Fixture()
    let volume = fixture.volumes[0]
    let bytes = [UInt8](repeating: 7, count: Self.unitCount * Self.unit)
    try bytes.withUnsafeBytes { try volume.write($0, at: 0) }
    try fixture.engine.checkpoint()
    let isRead = ManagedAtomic(false)
    let isAlmostFull = ManagedAtomic(false)
    let reader = { @Sendable () throws -> Void in
      try volume.forEachExtent(in: 0..<UInt64(bytes.count)) { _, _ in
        isRead.store(true, ordering: .relaxed)
        // Until long after the writer has found the store full for the first time.
        while !isAlmostFull.load(ordering: .relaxed) { usleep(1000) }
        usleep(200_000)
        return false
      }
    }
    let writer = { @Sendable () throws -> Void in
      defer { isAlmostFull.store(true, ordering: .relaxed) }
      while !isRead.load(ordering: .relaxed) { usleep(1000) }
      // 2.4 MB, where the store has 2 MiB, and the reader keeps all from being used again.
      for round in 0..<12 {
        if round == 4 { isAlmostFull.store(true, ordering: .relaxed) }
        try bytes.withUnsafeBytes { try volume.write($0, at: 0) }
        try fixture.engine.checkpoint()
      }
    }
    try inThreads([reader, writer])
    try fixture.engine.close()
  }

  private static func changeOwn(
    _ volume: Volume, _ number: Int, _ thread: Int, _ write: UInt64, _ owned: inout [UInt64],
    _ generator: inout SeededGenerator
  ) throws {
    let unit = generator.number(below: unitCount / 8) * 4 + thread
    let start = UInt64(unit * Self.unit)
    switch generator.number(below: 4) {
    case 0: try expect(volume, number, unit, owned[unit])
    case 1:
      try volume.zero(in: start..<start + UInt64(Self.unit), keepsSpace: generator.oneIn(2))
      owned[unit] = 0
    default:
      try stamp(number, unit, write).withUnsafeBytes { try volume.write($0, at: start) }
      owned[unit] = write
    }
  }

  private static func changeShared(
    _ volume: Volume, _ number: Int, _ write: UInt64, _ generator: inout SeededGenerator
  ) throws {
    let units = generator.range(below: UInt64(unitCount / 2), longest: generator.oneIn(3) ? 60 : 5)
    let first = Int(units.lowerBound) + unitCount / 2
    let range = first..<first + Int(units.upperBound - units.lowerBound)
    let bytes = UInt64(range.lowerBound * Self.unit)..<UInt64(range.upperBound * Self.unit)
    switch generator.number(below: 8) {
    case 0: try volume.discard(in: bytes)
    case 1: try volume.zero(in: bytes, keepsSpace: generator.oneIn(2))
    case 2: _ = try read(volume, number, range)
    default:
      try range.flatMap { stamp(number, $0, write) }.withUnsafeBytes { try volume.write($0, at: bytes.lowerBound) }
    }
  }

  private static func expect(_ volume: Volume, _ number: Int, _ unit: Int, _ write: UInt64) throws {
    let found = try read(volume, number, unit..<unit + 1)[0]
    guard found == write else {
      throw CheckFailure("unit \(unit) of volume \(number) has write \(found), and its owner wrote \(write)")
    }
  }

  /// The writes of some units, each of which is whole.
  private static func read(_ volume: Volume, _ number: Int, _ units: Range<Int>) throws -> [UInt64] {
    var bytes = [UInt8](repeating: 0xEE, count: units.count * unit)
    try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: UInt64(units.lowerBound * unit)) }
    return try units.map { place in
      let start = (place - units.lowerBound) * unit
      return try write(in: bytes[start..<start + unit], number, place)
    }
  }
}
