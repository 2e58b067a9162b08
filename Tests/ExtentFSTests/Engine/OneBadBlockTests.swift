import Bytes
import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// One block of metadata cannot be read: what does not need it goes on.
@Suite(.slow) struct OneBadBlockTests {
  static let volumeCount = 5
  static let blockCount = 400
  static let limit: UInt64 = 12 << 20

  /// What five volumes hold, by block: a byte, or nothing.
  struct Contents {
    var bytes: [[UInt8]]

    init() {
      bytes = Array(
        repeating: Array(repeating: 0, count: OneBadBlockTests.blockCount), count: OneBadBlockTests.volumeCount)
    }
  }

  /// A store with five volumes, of which each has a tree of its own, and two a snapshot.
  struct Made {
    var image: MediumImage
    var contents: Contents
    /// The blocks of each volume that the journal says something of.
    var journaled: Set<Int> = []
    var seals: Seals
  }

  static func options() -> EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = limit
    options.cacheByteCount = 64 << 10
    return options
  }

  static func name(_ volume: Int) -> String { "v\(volume)" }

  static func write(
    _ engine: Engine, _ volume: DiskVolume, _ index: Int, _ block: Int, _ byte: UInt8,
    _ contents: inout Contents
  ) throws {
    try [UInt8](repeating: byte, count: 1024).withUnsafeBytes { try volume.write($0, at: UInt64(block) << 10) }
    contents.bytes[index][block] = byte
  }

  /// - Parameter isLive: with a journal that has changes of all volumes.
  static func make(isLive: Bool) throws -> Made {
    let device = CrashDevice(byteCount: 0, maximumByteCount: limit)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 256 << 10
    try Engine.format(device, format)
    let engine = try Engine.open(device, options()).engine
    var contents = Contents()
    var volumes: [DiskVolume] = []
    for index in 0..<volumeCount {
      let volume = try engine.createVolume(
        named: name(index), byteCount: UInt64(blockCount) << 10, createdSeconds: 0)
      volumes.append(volume)
      // No two of these are one extent.
      for block in stride(from: 0, to: blockCount, by: 2) {
        try write(engine, volume, index, block, UInt8(index + 1), &contents)
      }
    }
    try engine.snapshot([("v0", "v0@s"), ("v1", "v1@s")], createdSeconds: 0)
    for index in 0..<2 {
      for block in stride(from: 100, to: 140, by: 2) {
        try write(engine, volumes[index], index, block, 0x40 + UInt8(index), &contents)
      }
    }
    try engine.checkpoint()
    var journaled: Set<Int> = []
    if isLive {
      journaled = Set(stride(from: 3, to: blockCount, by: 40)).union([50, 51])
      for index in 0..<volumeCount {
        for block in stride(from: 3, to: blockCount, by: 40) {
          try write(engine, volumes[index], index, block, 0x60 + UInt8(index), &contents)
        }
        try volumes[index].discard(in: 50 << 10..<52 << 10)
        (contents.bytes[index][50], contents.bytes[index][51]) = (0, 0)
      }
      try engine.flush()
      // A record behind the flush says that it succeeded.
      try write(engine, volumes[0], 0, 1, 0x77, &contents)
    } else {
      try engine.close()
    }
    let image = device.image
    return Made(image: image, contents: contents, journaled: journaled, seals: try Seals(image))
  }

  /// What can be done with one volume.
  struct Outcome {
    var isOpen = false
    var unreadable: Set<Int> = []
    var unreadableCount: Int { unreadable.count }
    var isWritable = false
    var isWhole: Bool { isOpen && isWritable && unreadableCount == 0 }
  }

  /// Reads all of a volume: what comes is right, or it is an error.
  static func read(
    _ volume: DiskVolume, _ index: Int, _ contents: Contents, _ outcome: inout Outcome
  ) throws {
    outcome.unreadable = []
    for block in 0..<blockCount {
      var bytes = [UInt8](repeating: 0xEE, count: 1024)
      do {
        try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: UInt64(block) << 10) }
      } catch let error as ExtentFSError {
        guard error.code == .damaged else { throw error }
        outcome.unreadable.insert(block)
        continue
      }
      let wanted = contents.bytes[index][block]
      guard bytes.allSatisfy({ $0 == wanted }) else {
        throw CheckFailure("block \(block) of \(name(index)) has \(bytes[0]), not \(wanted)")
      }
    }
  }

  /// Uses all volumes of an open store.
  private static func use(
    _ engine: Engine, _ round: Int, _ contents: inout Contents
  ) throws -> [Outcome] {
    var outcomes = [Outcome](repeating: Outcome(), count: volumeCount)
    for index in 0..<volumeCount {
      let volume: DiskVolume
      do {
        guard let found = try engine.openVolume(named: name(index)) else {
          throw CheckFailure("\(name(index)) is not there")
        }
        volume = found
      } catch let error as ExtentFSError {
        guard error.code == .damaged else { throw error }
        continue
      }
      defer { engine.closeVolume(volume) }
      outcomes[index].isOpen = true
      try read(volume, index, contents, &outcomes[index])
      var errors: [ExtentFSError.Code] = []
      for block in [7, 100, 201, 301 + round, 396] {
        do { try write(engine, volume, index, block, UInt8(0x80 + round), &contents) } catch let error as ExtentFSError
        {
          errors.append(error.code)
        }
      }
      // A whole block needs nothing to be read. Only a volume that is known to be damaged refuses it.
      guard errors.allSatisfy({ $0 == .readOnly || $0 == .outOfSpace }) else { throw CheckFailure("\(errors)") }
      outcomes[index].isWritable = errors.isEmpty
      if !volume.isDamaged { try volume.flush() }
    }
    return outcomes
  }

  @Test(arguments: [false, true])
  func `each metadata block in turn: the volumes that do not need it go on`(_ isLive: Bool) throws {
    let made = try Self.make(isLive: isLive)
    for kind in ["inodes 0", "names 0", "space 0", "extents 0", "extents 1", "shared 0", "bitmap", "checksums"] {
      try #require(made.seals.blocks.contains { $0.kind == kind }, "the store has no block of the kind \(kind)")
    }
    for block in made.seals.blocks {
      do { try Self.damage(block, of: made) } catch {
        Issue.record("\(block.kind), block \(block.block), \(isLive ? "live" : "closed"): \(error)")
      }
    }
  }

  static func damaged(_ block: Seals.Block, of made: Made, records: Bool) throws -> CrashDevice {
    let device = CrashDevice(made.image, maximumByteCount: limit, records: false)
    var bytes = device.image.bytes(block.block << 10..<(block.block + 1) << 10)
    bytes[200] ^= 4
    try device.write(bytes, at: block.block << 10)
    return CrashDevice(device.image, maximumByteCount: limit, records: records)
  }

  // MARK: Power cuts

  @Test func `no power cut loses what is carried along, or what others have flushed`() throws {
    let made = try Self.make(isLive: true)
    try withSeededGenerator { generator in
      var count = 0
      for kind in ["extents 0", "extents 1", "inodes 0", "names 0", "shared 0", "bitmap", "checksums"] {
        let all = made.seals.blocks.filter { $0.kind == kind }
        // Of many leaves some are of snapshots, or have nothing in the journal.
        for block in all.count > 4 ? (0..<3).map({ _ in all[generator.number(below: all.count)] }) : all {
          do { count += try Self.cut(block, of: made, &generator) } catch {
            throw CheckFailure("\(kind), block \(block.block): \(error)")
          }
        }
      }
      print("power cuts with one bad block: \(count)")
    }
  }

  /// Opens the store, writes and flushes; then cuts the power at moments of that, and looks at what is there.
  private static func cut(
    _ block: Seals.Block, of made: Made, _ generator: inout SeededGenerator
  ) throws -> Int {
    let device = try damaged(block, of: made, records: true)
    // What one block of each volume held, and the number of calls at which that was durable.
    var history: [[(byte: UInt8, isDurableAt: Int)]] = Array(
      repeating: [(made.contents.bytes[0][7], 0)], count: volumeCount)
    let engine = try Engine.open(device, options()).engine
    var contents = made.contents
    for round in 0..<3 as Range<UInt8> {
      for index in 0..<volumeCount {
        guard let volume = try? engine.openVolume(named: name(index)) else { continue }
        defer { engine.closeVolume(volume) }
        do { try write(engine, volume, index, 7, 0xA0 + round, &contents) } catch let error as ExtentFSError {
          guard error.code == .readOnly else { throw error }
          continue
        }
        try engine.flush()
        history[index].append((0xA0 + round, device.callCount))
      }
      try engine.checkpoint()
    }

    let log = device.log
    let step = max(1, log.crashPointCount / 24)
    var count = 0
    for point in stride(from: generator.number(below: step), to: log.crashPointCount, by: step) {
      let (moment, pictures) = (log.moment(at: point), Pictures(.sampled(2)))
      for number in 0..<moment.pictureCount(pictures) {
        let image = moment.picture(number, pictures, seed: generator.next())
        let engine = try Engine.open(CrashDevice(image, maximumByteCount: limit, records: false), options()).engine
        for index in 0..<volumeCount {
          guard let volume = try? engine.openVolume(named: name(index)) else { continue }
          defer { engine.closeVolume(volume) }
          var expected = made.contents
          let durable = history[index].lastIndex { $0.isDurableAt <= point } ?? 0
          let allowed = history[index][durable...].map(\.byte)
          var byte: UInt8 = 0
          do { try withUnsafeMutableBytes(of: &byte) { try volume.read(into: $0, at: 7 << 10) } } catch let error
            as ExtentFSError
          {
            // What was never written since belongs to the node.
            guard error.code == .damaged, durable == 0 else { throw error }
            byte = history[index][0].byte
          }
          guard allowed.contains(byte) else {
            throw CheckFailure("cut at \(point): \(name(index)) has \(byte), not \(allowed)")
          }
          expected.bytes[index][7] = byte
          var outcome = Outcome()
          try read(volume, index, expected, &outcome)
          guard outcome.unreadable.isDisjoint(with: made.journaled) else {
            throw CheckFailure("cut at \(point): what the journal had of \(name(index)) cannot be read")
          }
        }
        try engine.checkpoint()
        count += 1
      }
    }
    return count
  }

  private static func damage(_ block: Seals.Block, of made: Made) throws {
    let device = try damaged(block, of: made, records: false)
    var contents = made.contents
    var outcomes: [Outcome] = []
    for round in 0..<3 {
      let engine: Engine
      do { engine = try Engine.open(device, options()).engine } catch {
        // Nothing can be written where nobody knows which blocks are free; but it can be looked at.
        guard block.kind.hasPrefix("space") else { throw CheckFailure("it does not open: \(error)") }
        let reader = try Engine.open(device, options(), readOnly: true).engine
        _ = try reader.volumeRecords()
        return
      }
      outcomes = try use(engine, round, &contents)
      // The journal says where these are and what their checksums are, however often the store is opened.
      if round < 2, block.kind != "space 0",
        outcomes.contains(where: { !$0.unreadable.isDisjoint(with: made.journaled) })
      {
        throw CheckFailure("round \(round): what the journal had cannot be read: \(outcomes)")
      }
      try engine.checkpoint()
      _ = try use(engine, round + 10, &contents)
      try engine.checkpoint()
      try engine.health.requireWritable()
      let others = outcomes.count { $0.isWhole }
      switch block.kind {
      case "names 0", "names 1", "shared 0", "shared 1", "bitmap":
        if others != volumeCount { throw CheckFailure("round \(round): only \(others) volumes go on: \(outcomes)") }
      case "extents 0", "extents 1", "extents 2":
        if others < volumeCount - 1 { throw CheckFailure("round \(round): only \(others) volumes go on: \(outcomes)") }
        let unreadable = outcomes.reduce(0) { $0 + $1.unreadableCount }
        if block.kind == "extents 0", unreadable > 100 { throw CheckFailure("\(unreadable) blocks are unreadable") }
      case "inodes 0":
        // Its one record may be that of a snapshot.
        if others < volumeCount - 1 { throw CheckFailure("round \(round): only \(others) volumes go on: \(outcomes)") }
      case "checksums":
        if !outcomes.allSatisfy({ $0.isOpen && $0.isWritable }) { throw CheckFailure("\(outcomes)") }
      default: break
      }
      if round == 1, let damaged = outcomes.firstIndex(where: { !$0.isWhole && $0.isOpen }) {
        // What is damaged can be deleted, and takes nothing with it.
        try engine.delete([name(damaged)], force: true)
        while try engine.dropDeleted() {}
        let again = try engine.createVolume(
          named: name(damaged), byteCount: UInt64(blockCount) << 10, createdSeconds: 0)
        contents.bytes[damaged] = Array(repeating: 0, count: blockCount)
        engine.closeVolume(again)
        var outcome = Outcome()
        try read(again, damaged, contents, &outcome)
        if outcome.unreadableCount > 0 { throw CheckFailure("a new volume cannot be read") }
      }
    }
  }
}
