import Atomics
import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Snapshots, clones, throwaways, rollbacks, renames and deletions, while other threads read, write, open and close.
@Suite(.slow) struct NamespaceConcurrencyTests {
  private static let blockCount = 96
  private static let rounds = getenv("LACUNA_HUNT_SEEDS") == nil ? 40 : 2000

  private typealias Volume = DiskVolume

  /// 1024 bytes that say which block they are for, and which write they are; the same words over and over.
  private static func stamp(_ block: Int, _ write: UInt64) -> [UInt64] {
    (0..<64).flatMap { _ in [UInt64(block) << 32 | 0x5A, write] }
  }

  /// The writes that the blocks of a volume have whole stamps of; 0 for zeroes.
  private static func writes(in volume: Volume) throws -> [UInt64] {
    var words = [UInt64](repeating: 7, count: blockCount * 128)
    try words.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    return try (0..<blockCount).map { block in
      let part = Array(words[block * 128..<(block + 1) * 128])
      try check(
        part == stamp(block, part[1]) || part.allSatisfy { $0 == 0 }, "block \(block) of '\(volume.name)' is torn")
      return part[1]
    }
  }

  private static func fill(_ volume: Volume, _ block: Int, _ write: UInt64) throws {
    try stamp(block, write).withUnsafeBytes { try volume.write($0, at: UInt64(block) << 10) }
  }

  /// What a thread that works with volumes others delete and roll back may be told.
  private static func tolerant(_ codes: [ExtentFSError.Code], _ body: () throws -> Void) throws {
    do { try body() } catch let error as ExtentFSError where codes.contains(error.code) {}
  }

  private struct Fixture: Sendable {
    let device: MemoryDevice
    let engine: Engine

    init() throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 65536
      try Engine.format(device, format)
      var options = EngineOptions()
      options.limitByteCount = 64 << 20
      // Nodes come and go from the cache.
      options.cacheByteCount = 1 << 16
      engine = try Engine.open(device, options).engine
      for name in ["own", "rolled"] {
        let volume = try engine.createVolume(
          named: name, byteCount: UInt64(NamespaceConcurrencyTests.blockCount) << 10, createdSeconds: 0)
        for block in 0..<NamespaceConcurrencyTests.blockCount {
          try NamespaceConcurrencyTests.fill(volume, block, 1)
        }
        engine.closeVolume(volume)
      }
      try engine.snapshot([("rolled", "rolled@first")], createdSeconds: 0)
    }

    func with<Result>(_ name: String, _ body: (Volume) throws -> Result) throws -> Result? {
      guard let volume = try engine.openVolume(named: name) else { return nil }
      defer { engine.closeVolume(volume) }
      return try body(volume)
    }
  }

  @Test func `namespace operations and clients do not disturb each other`() throws {
    let fixture = try Fixture()
    let engine = fixture.engine
    let seed = try withSeededGenerator { $0.next() }
    let isOver = ManagedAtomic(false)

    // Owns each second block of `own`, finds there what it wrote last, and opens and closes the volume all the time.
    let writers = (0..<2).map { thread in
      { @Sendable () throws in
        var generator = SeededGenerator(seed: seed &+ UInt64(thread))
        var owned = [UInt64](repeating: 1, count: Self.blockCount)
        var round: UInt64 = 1
        while !isOver.load(ordering: .relaxed) {
          let isThere: Void? = try fixture.with("own") { volume in
            for _ in 0..<8 {
              let block = generator.number(below: Self.blockCount / 2) * 2 + thread
              round += 1
              try Self.fill(volume, block, round << 1 | UInt64(thread))
              owned[block] = round << 1 | UInt64(thread)
            }
            let found = try Self.writes(in: volume)
            for block in stride(from: thread, to: Self.blockCount, by: 2) {
              try check(found[block] == owned[block], "block \(block) has write \(found[block]), not \(owned[block])")
            }
          }
          try check(isThere != nil, "'own' is not there")
        }
      }
    }

    // Takes snapshots, whose clones and throwaways have the same, and never change with anything else.
    let namespace = { @Sendable () throws in
      var generator = SeededGenerator(seed: seed ^ 5)
      for round in 0..<Self.rounds {
        let (snapshot, clone) = ("own@\(round)", "clone\(round)")
        try engine.snapshot([("own", snapshot), ("rolled", "rolled@\(round)")], createdSeconds: 0)
        let first = try fixture.with(snapshot) { try Self.writes(in: $0) }
        try engine.clone(snapshot, as: clone, createdSeconds: 0)
        let throwaway = try engine.makeEphemeralClone(of: snapshot)
        try check(try Self.writes(in: throwaway) == first, "the throwaway of '\(snapshot)' is another")
        let block = generator.number(below: Self.blockCount)
        try Self.fill(throwaway, block, 99)
        if generator.oneIn(3) { try engine.checkpoint() }
        _ = try fixture.with(clone) { try Self.fill($0, block, 98) }
        var changed = first
        changed?[block] = 99
        try check(try Self.writes(in: throwaway) == changed, "a throwaway lost a write")
        changed?[block] = 98
        try check(try fixture.with(clone) { try Self.writes(in: $0) } == changed, "a clone lost a write")
        if generator.oneIn(2) {
          try engine.discardEphemeralClone(throwaway)
        } else {
          try engine.promote(throwaway, as: "kept\(round)")
          engine.closeVolume(throwaway)
          try engine.delete(["kept\(round)"], force: true)
        }
        try engine.rename(clone, to: "renamed\(round)")
        try check(try fixture.with(snapshot) { try Self.writes(in: $0) } == first, "'\(snapshot)' changed")
        // One of the readers may have it open.
        try Self.tolerant([.busy]) { try engine.delete([snapshot], force: false) }
        try Self.tolerant([.noSuchVolume]) { try engine.delete([snapshot], force: true) }
        try engine.delete(["renamed\(round)"], force: true)
        if round >= 3 { try engine.delete(["rolled@\(round - 3)"], force: true) }
        if generator.oneIn(4) {
          try engine.resize("rolled", to: UInt64(Self.blockCount) << 10, allowsSmaller: true, force: true)
        }
      }
    }

    // Rolls a volume back that others use, who then find whole stamps.
    let rollbacks = { @Sendable () throws in
      while !isOver.load(ordering: .relaxed) { try engine.rollback("rolled", to: "rolled@first", force: true) }
    }
    let users = { @Sendable () throws in
      var generator = SeededGenerator(seed: seed ^ 6)
      var round: UInt64 = 2
      while !isOver.load(ordering: .relaxed) {
        _ = try fixture.with("rolled") { volume in
          round += 1
          try Self.fill(volume, generator.number(below: Self.blockCount), round)
          _ = try Self.writes(in: volume)
          try volume.flush()
        }
      }
    }

    // Opens whatever is there, which may be deleted at any moment.
    let readers = { @Sendable () throws in
      var generator = SeededGenerator(seed: seed ^ 7)
      while !isOver.load(ordering: .relaxed) {
        let names = try engine.volumeRecords().map(\.record.name).filter { !$0.isEmpty }
        let name = names[generator.number(below: names.count)]
        try Self.tolerant([.deleted]) { _ = try fixture.with(name) { try Self.writes(in: $0) } }
        try Self.tolerant([.noSuchVolume]) { _ = try engine.spaceAccount(of: name) }
        try Self.tolerant([.noSuchVolume]) { try engine.discardEphemeralClone(try engine.makeEphemeralClone(of: name)) }
        _ = try engine.deletionBacklog()
      }
    }
    let drops = { @Sendable () throws in
      while !isOver.load(ordering: .relaxed) {
        if try !engine.dropDeleted() { usleep(500) }
        try engine.trim(leaving: 16)
        _ = try engine.reclaimSome()
      }
    }
    let reclaims = { @Sendable () throws in
      while !isOver.load(ordering: .relaxed) {
        _ = try engine.reclaimAll { _, _ in }
        usleep(1000)
      }
    }
    let bodies = writers + [namespace, rollbacks, users, readers, drops, reclaims]
    try inThreads(
      bodies.enumerated().map { index, body in
        { @Sendable () throws in
          // The third ends by itself, and all of them with any that fails.
          defer { if index == writers.count { isOver.store(true, ordering: .relaxed) } }
          do { try body() } catch {
            isOver.store(true, ordering: .relaxed)
            throw error
          }
        }
      })
    while try engine.dropDeleted() {}
    try engine.close()
    #expect(try StoreCheck.findings(on: fixture.device) == [])
  }
}
