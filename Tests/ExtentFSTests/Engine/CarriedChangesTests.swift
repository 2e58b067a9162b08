import Atomics
import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Changes that cannot be merged, since the node or the inode that they belong to cannot be read, and what else happens to them.
@Suite(.slow) struct CarriedChangesTests {
  private typealias Store = OneBadBlockTests

  /// A store with a bad leaf of a volume that no other shares anything with, and with changes below that leaf in its journal.
  private struct Carrier {
    var made: OneBadBlockTests.Made
    var block: Seals.Block
    /// The volume, and one that is whole.
    var (index, other): (Int, Int)

    init() throws {
      made = try Store.make(isLive: true)
      for block in made.seals.blocks where block.kind == "extents 0" {
        let engine = try Engine.open(try Store.damaged(block, of: made, records: false), Store.options()).engine
        for index in 2..<Store.volumeCount {
          guard let volume = try engine.openVolume(named: Store.name(index)), volume.isDamaged else { continue }
          (self.block, self.index, other) = (block, index, index == 2 ? 3 : 2)
          return
        }
      }
      throw CheckFailure("no volume has changes below a leaf")
    }

    func device(records: Bool = false) throws -> CrashDevice {
      try Store.damaged(block, of: made, records: records)
    }

    /// Makes the leaf whole again.
    func mend(_ device: CrashDevice) throws {
      try device.write(made.image.bytes(block.block << 10..<(block.block + 1) << 10), at: block.block << 10)
      try device.sync()
    }
  }

  /// The medium with all calls before `point`, as after the death of a process.
  private static func image(_ log: CrashLog, at point: Int) -> MediumImage {
    let moment = log.moment(at: point)
    return moment.picture(moment.pending.map { _ in .kept })
  }

  private static func open(_ image: MediumImage) throws -> (Engine, CrashDevice) {
    let device = CrashDevice(image, maximumByteCount: Store.limit, records: false)
    return (try Engine.open(device, Store.options()).engine, device)
  }

  private static func open(_ volume: Int, _ engine: Engine) throws -> DiskVolume {
    guard let found = try engine.openVolume(named: Store.name(volume)) else {
      throw CheckFailure("no volume \(volume)")
    }
    return found
  }

  /// A leaf of a volume that shares nothing.
  private static func leaf(of made: OneBadBlockTests.Made) throws -> Seals.Block {
    for block in made.seals.blocks where block.kind == "extents 0" {
      let engine = try Engine.open(try Store.damaged(block, of: made, records: false), Store.options()).engine
      var outcome = Store.Outcome()
      try Store.read(try open(3, engine), 3, made.contents, &outcome)
      if !outcome.unreadable.isEmpty { return block }
    }
    throw CheckFailure("the volume has no leaf")
  }

  private static func code(_ body: () throws -> Void) -> ExtentFSError.Code? {
    do { try body() } catch { return (error as? ExtentFSError)?.code }
    return nil
  }

  // MARK: Death

  @Test(arguments: [false, true])
  func `a process that dies in a checkpoint which carries changes leaves their blocks alone`(_ isMended: Bool) throws {
    let carrier = try Carrier()
    let device = try carrier.device(records: true)
    var contents = carrier.made.contents
    let engine = try Engine.open(device, Store.options()).engine
    try Store.write(engine, try Self.open(carrier.other, engine), carrier.other, 7, 0xB1, &contents)
    try engine.flush()
    let before = device.callCount
    try engine.checkpoint()
    for point in before...device.callCount {
      var contents = contents
      var (engine, crashed) = try Self.open(Self.image(device.log, at: point))
      if isMended {
        crashed = CrashDevice(Self.image(device.log, at: point), maximumByteCount: Store.limit, records: false)
        try carrier.mend(crashed)
        engine = try Engine.open(crashed, Store.options()).engine
      }
      let carried = try Self.open(carrier.index, engine).state.withView { $0.active.physicalRuns }
      try check(carried.isEmpty == isMended, "point \(point): \(carried) are carried")
      for run in carried {
        let group = try #require(engine.geometry.group(of: run.block))
        let inUse = try #require(engine.space.bitmaps(ofGroup: group)).inUse
        let isHeld = run.blocks.allSatisfy { inUse.contains(Int(engine.geometry.indexInGroup(of: $0))) }
        try check(isHeld, "point \(point): \(run) is carried and free")
      }
      // Others take all that is free, several times over.
      let other = try Self.open(carrier.other, engine)
      for round in 0..<3 as Range<UInt8> {
        for block in 0..<Store.blockCount {
          try Store.write(engine, other, carrier.other, block, 0xC0 + round, &contents)
        }
        try engine.checkpoint()
      }
      var outcome = Store.Outcome()
      try Store.read(try Self.open(carrier.index, engine), carrier.index, contents, &outcome)
      try check(outcome.unreadable.isDisjoint(with: carrier.made.journaled), "point \(point): \(outcome)")
      try check(isMended == outcome.unreadable.isEmpty, "point \(point): \(outcome)")
      try engine.health.requireWritable()
      let (again, _) = try Self.open(crashed.image)
      try Store.read(try Self.open(carrier.index, again), carrier.index, contents, &outcome)
    }
  }

  @Test func `what an opening carried that died is not taken for lost records by later ones`() throws {
    let carrier = try Carrier()
    let device = try carrier.device(records: true)
    _ = try Engine.open(device, Store.options())
    let log = device.log
    for point in 0..<log.crashPointCount {
      let crashed = CrashDevice(Self.image(log, at: point), maximumByteCount: Store.limit, records: false)
      try carrier.mend(crashed)
      var contents = carrier.made.contents
      let engine = try Engine.open(crashed, Store.options()).engine
      let volume = try Self.open(carrier.other, engine)
      for block in 0..<10 { try Store.write(engine, volume, carrier.other, block, 0xD1, &contents) }
      try volume.flush()
      try Store.write(engine, volume, carrier.other, 11, 0xD1, &contents)
      let (again, _) = try Self.open(crashed.image)
      for index in [carrier.index, carrier.other] {
        var outcome = Store.Outcome()
        try Store.read(try Self.open(index, again), index, contents, &outcome)
        try check(outcome.unreadable.isEmpty, "point \(point): \(outcome)")
      }
    }
  }

  @Test func `a journal that others fill has room for what is carried, now and at the next opening`() throws {
    let carrier = try Carrier()
    let device = try carrier.device()
    var contents = carrier.made.contents
    let engine = try Engine.open(device, Store.options()).engine
    let volume = try Self.open(carrier.other, engine)
    var full: MediumImage?
    var most: UInt64 = 0
    for count in 0..<6000 {
      try Store.write(
        engine, volume, carrier.other, count % Store.blockCount, UInt8(truncatingIfNeeded: count / 7), &contents)
      if engine.journal.usedByteCount > most { (most, full) = (engine.journal.usedByteCount, device.image) }
    }
    try engine.health.requireWritable()
    let (again, _) = try Self.open(try #require(full))
    var outcome = Store.Outcome()
    try Store.read(try Self.open(carrier.index, again), carrier.index, contents, &outcome)
    #expect(outcome.unreadable.isDisjoint(with: carrier.made.journaled))
  }

  // MARK: Copies

  @Test func `a volume with changes that cannot be merged is neither copied nor compared`() throws {
    let carrier = try Carrier()
    let engine = try Engine.open(try carrier.device(), Store.options()).engine
    let name = Store.name(carrier.index)
    let volume = try Self.open(carrier.index, engine)
    let other = try Self.open(carrier.other, engine)
    for attempt in 0..<2 {
      let codes = [
        Self.code { try engine.snapshot([(name, "\(name)@x"), ("v0", "v0@x")], createdSeconds: 0) },
        Self.code { try engine.clone(name, as: "copy", createdSeconds: 0) },
        Self.code { _ = try engine.makeEphemeralClone(of: name) },
        Self.code { try engine.forEachDifference(from: other, to: volume, in: 0..<1 << 20) { _, _ in true } },
      ]
      #expect(codes == [.damaged, .damaged, .damaged, .damaged], "attempt \(attempt)")
    }
    let names = try engine.volumeRecords().filter { !$0.record.isTransient }.map(\.record.name).sorted()
    #expect(names == ["v0", "v0@s", "v1", "v1@s", "v2", "v3", "v4"])
    // Others are copied as ever, and the names are free.
    try engine.snapshot([("v0", "v0@x")], createdSeconds: 0)
    try engine.clone("v0@x", as: "copy", createdSeconds: 0)
    try engine.health.requireWritable()
  }

  @Test func `a snapshot that finds the damage is refused, and its checkpoint is done`() throws {
    let made = try Store.make(isLive: false)
    let block = try Self.leaf(of: made)
    let engine = try Engine.open(try Store.damaged(block, of: made, records: false), Store.options()).engine
    var contents = made.contents
    for index in 0..<Store.volumeCount {
      let volume = try Self.open(index, engine)
      for number in stride(from: 0, to: Store.blockCount, by: 10) {
        try Store.write(engine, volume, index, number, 0x99, &contents)
      }
    }
    let pairs = (0..<Store.volumeCount).map { (volume: Store.name($0), snapshot: "\(Store.name($0))@new") }
    #expect(Self.code { try engine.snapshot(pairs, createdSeconds: 0) } == .damaged)
    try engine.health.requireWritable()
    let isThere = try engine.volumeRecords().contains { $0.record.name.hasSuffix("@new") }
    #expect(!isThere)
    for index in 0..<Store.volumeCount {
      var outcome = Store.Outcome()
      try Store.read(try Self.open(index, engine), index, contents, &outcome)
      #expect(outcome.unreadable.allSatisfy { $0 % 10 != 0 })
    }
  }

  @Test func `a volume that is rolled back is whole again, also for those who have it open`() throws {
    let made = try Store.make(isLive: true)
    for block in made.seals.blocks where block.kind == "extents 0" {
      let engine = try Engine.open(try Store.damaged(block, of: made, records: false), Store.options()).engine
      let volume = try Self.open(0, engine)
      guard volume.isDamaged else { continue }
      try engine.rollback("v0", to: "v0@s", force: true)
      #expect(volume.access == .writable)
      #expect(engine.damage.all.isEmpty)
      var contents = made.contents
      try Store.write(engine, volume, 0, 1, 5, &contents)
      try engine.delete(["v0"], withSnapshots: true, force: true)
      #expect(engine.damage.all.isEmpty)
      return
    }
    throw CheckFailure("no leaf of v0 has changes below it")
  }

  // MARK: Inodes

  @Test func `an inode that can be read later is left alone until the store is opened anew`() throws {
    let made = try Store.make(isLive: true)
    for block in made.seals.blocks where block.kind == "inodes 0" {
      let device = try Store.damaged(block, of: made, records: false)
      let engine = try Engine.open(device, Store.options()).engine
      let stray = engine.checkpoints.strayChanges.keys.sorted()
      guard let inode = stray.first else { continue }
      try device.write(made.image.bytes(block.block << 10..<(block.block + 1) << 10), at: block.block << 10)
      let index = Int(inode) - 1
      let name = Store.name(index)
      let codes = [
        Self.code { _ = try engine.openVolume(named: name) }, Self.code { try engine.delete([name], force: true) },
        Self.code { try engine.clone(name, as: "copy", createdSeconds: 0) },
        Self.code { try engine.resize(name, to: 1 << 20, allowsSmaller: false, force: true) },
        Self.code { try engine.rename(name, to: "other") }, Self.code { _ = try engine.makeEphemeralClone(of: name) },
      ]
      #expect(codes.allSatisfy { $0 == .damaged }, "\(codes)")
      try engine.checkpoint()
      var contents = made.contents
      let other = index == 0 ? 1 : 0
      try Store.write(engine, try Self.open(other, engine), other, 7, 9, &contents)
      try engine.checkpoint()
      let (again, _) = try Self.open(device.image)
      for index in 0..<Store.volumeCount {
        var outcome = Store.Outcome()
        try Store.read(try Self.open(index, again), index, contents, &outcome)
        #expect(outcome.unreadable.isEmpty)
      }
      return
    }
    throw CheckFailure("no inode had changes")
  }

  // MARK: Large stores, bad sectors

  @Test func `a large store whose space tree is lost is refused for writing at once`() throws {
    let device = CrashDevice(byteCount: 0, maximumByteCount: 64 << 30)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 256 << 10
    try Engine.format(device, format)
    var options = EngineOptions()
    options.limitByteCount = 40 << 30
    let engine = try Engine.open(device, options).engine
    var contents = Store.Contents()
    let volume = try engine.createVolume(named: "v0", byteCount: 1 << 20, createdSeconds: 0)
    for block in 0..<400 { try Store.write(engine, volume, 0, block, 1, &contents) }
    try engine.close()
    try device.grow(to: 4000 << 23)
    let root = try #require(try Seals(device.image).blocks.first { $0.kind.hasPrefix("space") })
    var bytes = device.image.bytes(root.block << 10..<(root.block + 1) << 10)
    bytes[200] ^= 4
    try device.write(bytes, at: root.block << 10)
    let start = ThreadClock.now()
    #expect(Self.code { _ = try Engine.open(device, options) } == .damaged)
    let time = ThreadClock.now() - start
    #expect(time < .seconds(2))
  }

  @Test func `a sector of the journal that cannot be read matters only where records may be`() throws {
    let made = try Store.make(isLive: true)
    let superblock = made.seals.superblock
    let tail = superblock.geometry.journalRegion.lowerBound + superblock.journalTailOffset
    let journal = try JournalReplay(
      device: CrashDevice(made.image, records: false), region: superblock.geometry.journalRegion,
      identity: JournalIdentity(storeTag: superblock.uuid.tag, epoch: superblock.journalEpoch),
      tail: JournalPosition(offset: superblock.journalTailOffset, sequence: superblock.journalTailSequence))
    let used = try journal.forEach { _ in }.usedByteCount
    try #require(used > 8192 && superblock.journalTailOffset + used < 190 << 10)
    func open(_ bad: Range<UInt64>, readOnly: Bool = false) throws -> (Engine, [String]) {
      let device = BadSectors(CrashDevice(made.image, maximumByteCount: Store.limit, records: false), bad: bad)
      let (engine, warnings) = try Engine.open(device, Store.options(), readOnly: readOnly)
      return (engine, warnings)
    }
    // Far behind the last record.
    let far = tail + used + 40 << 10
    let (engine, _) = try open(far..<far + 512)
    for index in 0..<Store.volumeCount {
      var outcome = Store.Outcome()
      let volume = try #require(try engine.openVolume(named: Store.name(index)))
      try Store.read(volume, index, made.contents, &outcome)
      #expect(outcome.unreadable.isEmpty)
    }
    // Among them: nobody may write, for something acknowledged is missing.
    let middle = tail + used / 2
    #expect(Self.code { _ = try open(middle..<middle + 8) } == .damaged)
    let (reader, warnings) = try open(middle..<middle + 8, readOnly: true)
    #expect(!warnings.isEmpty && !reader.damage.all.isEmpty)
  }

  @Test func `a node in a bad sector is damage, and a device that gives nothing is not`() throws {
    let made = try Store.make(isLive: false)
    let block = try Self.leaf(of: made)
    let device = BadSectors(
      CrashDevice(made.image, maximumByteCount: Store.limit, records: false),
      bad: block.block << 10..<(block.block << 10) + 1)
    let engine = try Engine.open(device, Store.options()).engine
    var contents = made.contents
    var damagedCount = 0
    for _ in 0..<2 {
      damagedCount = 0
      for index in 0..<Store.volumeCount {
        let volume = try #require(try engine.openVolume(named: Store.name(index)))
        var outcome = Store.Outcome()
        try Store.read(volume, index, contents, &outcome)
        if !outcome.unreadable.isEmpty { damagedCount += 1 }
        if volume.access == .writable {
          try Store.write(engine, volume, index, 1, 3, &contents)
          try Store.write(engine, volume, index, 380, 3, &contents)
        }
      }
      try engine.checkpoint()
    }
    #expect(damagedCount == 1)
    try engine.health.requireWritable()
    device.failAll()
    let error = #expect(throws: ExtentFSError.self) { _ = try Engine.open(device, Store.options()) }
    #expect(error.map { if case .device = $0.code { true } else { false } } == true)
  }
}

/// A device of which a part cannot be read, or nothing at all.
private final class BadSectors<Base: BlockDevice>: BlockDevice {
  private let base: Base
  private let bad: Range<UInt64>
  private let isDead = Locked(false)

  init(_ base: Base, bad: Range<UInt64>) { (self.base, self.bad) = (base, bad) }

  func failAll() { isDead.withLock { $0 = true } }

  var byteCount: UInt64 { base.byteCount }
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    if isDead.withLock({ $0 }) || bad.overlaps(offset..<offset + UInt64(buffer.count)) {
      throw DeviceError(operation: .read, errno: EIO, offset: offset, byteCount: UInt64(buffer.count))
    }
    try base.read(into: buffer, at: offset)
  }
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.write(buffer, at: offset)
  }
  func sync() throws(DeviceError) { try base.sync() }
  func discard(_ range: Range<UInt64>) throws(DeviceError) { try base.discard(range) }
  func grow(to byteCount: UInt64) throws(DeviceError) { try base.grow(to: byteCount) }
}
