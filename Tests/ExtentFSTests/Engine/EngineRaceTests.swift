import Atomics
import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What was decided from a view or a catalog before a lock is decided again under it: each test makes one call of the device
/// wait where something else can come between.
@Suite struct EngineRaceTests {
  private typealias Device = PacedDevice<MemoryDevice>

  /// A store in memory whose device can be made to wait. Its blocks have 1024 bytes.
  private struct Fixture: Sendable {
    let device: Device
    let engine: Engine

    init(limit: UInt64 = 64 << 20, cache: UInt64 = 64 << 20) throws {
      device = Device(try MemoryDevice(byteCount: 0, maximumByteCount: limit))
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 1 << 20
      try Engine.format(device, format)
      var options = EngineOptions()
      options.limitByteCount = limit
      options.cacheByteCount = cache
      engine = try Engine.open(device, options).engine
    }

    func create(_ name: String, _ byteCount: UInt64) throws -> DiskVolume {
      try engine.createVolume(named: name, byteCount: byteCount, createdSeconds: 0)
    }

    func open(_ name: String) throws -> DiskVolume {
      guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("there is no '\(name)'") }
      return volume
    }

    func write(_ volume: DiskVolume, _ byte: UInt8, _ range: Range<UInt64>) throws {
      try [UInt8](repeating: byte, count: Int(range.upperBound - range.lowerBound)).withUnsafeBytes {
        try volume.write($0, at: range.lowerBound)
      }
    }

    func read(_ volume: DiskVolume, _ range: Range<UInt64>) throws -> [UInt8] {
      var bytes = [UInt8](repeating: 0xEE, count: Int(range.upperBound - range.lowerBound))
      try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: range.lowerBound) }
      return bytes
    }

    func check(_ volume: DiskVolume, _ range: Range<UInt64>, is byte: UInt8, _ what: String) throws {
      let bytes = try read(volume, range)
      guard let index = bytes.firstIndex(where: { $0 != byte }) else { return }
      throw CheckFailure("\(what): byte \(range.lowerBound + UInt64(index)) is \(bytes[index]), not \(byte)")
    }

    func checkStore() throws {
      try engine.checkpoint()
      let findings = try StoreCheck.findings(on: device)
      guard findings.isEmpty else { throw CheckFailure("\(findings)") }
    }
  }

  /// Long enough for a thread that nothing stops to come to the lock that it is to wait for.
  private static func letOthersCome() { usleep(200_000) }

  // MARK: Growing

  /// All writers wait while a checkpoint begins. It must not wait for a device that grows for somebody else.
  @Test(arguments: ["for changes", "for what shares blocks"])
  func `nobody else waits while the device grows for the reserve`(_ reason: String) throws {
    let store = try Fixture()
    let volume = try store.create("v", 64 << 10)
    try store.write(volume, 1, 0..<8192)
    // Much more must be kept free than there is.
    for _ in 0..<20_000 { store.engine.reserve.edits.count(1) }
    let stop = store.device.stop(.before, next: .grow)
    let isDone = Locked(false)
    try inThreads([
      {
        if reason == "for changes" { return try store.engine.extendReserve() }
        try store.engine.snapshot([("v", "v@1")], createdSeconds: 0)
      },
      {
        stop.waitUntilHit()
        defer { stop.letGo() }
        // What waits goes on when the device does, and is found out then.
        for _ in 0..<3000 where !isDone.withLock({ $0 }) { usleep(10_000) }
        try LacunaTestSupport.check(isDone.withLock { $0 }, "a checkpoint and a write waited for the device to grow")
      },
      {
        stop.waitUntilHit()
        try store.engine.checkpoint()
        store.engine.reserve.freeze()
        isDone.withLock { $0 = true }
      },
    ])
    try store.check(volume, 0..<8192, is: 1, "what was written")
    try store.checkStore()
  }

  // MARK: The end of a volume

  @Test(arguments: [false, true])
  func `zeroes to the end of a volume do not reach what comes behind when it grows meanwhile`(
    _ keepsSpace: Bool
  ) throws {
    let store = try Fixture()
    let volume = try store.create("v", 10_060)
    try store.write(volume, 1, 0..<10_060)
    // The first thing that is written are the bytes at the edge, in a block of their own.
    let stop = store.device.stop(.after, next: .write) { $0.upperBound - $0.lowerBound == 1024 }
    try inThreads([
      { try volume.zero(in: 100..<10_060, keepsSpace: keepsSpace) },
      {
        stop.waitUntilHit()
        defer { stop.letGo() }
        try store.engine.resize("v", to: 16 << 10, allowsSmaller: false, force: false)
        try store.write(volume, 2, 10_060..<10_560)
        try volume.flush()
      },
    ])
    try store.check(volume, 10_060..<10_560, is: 2, "what was flushed behind the old end")
    try store.check(volume, 100..<10_060, is: 0, "what was zeroed")
    try store.check(volume, 0..<100, is: 1, "what lies before it")
    try store.checkStore()
  }

  @Test(arguments: ["trim", "zero", "reserve"])
  func `a change to the end of a volume that waits for a rollback spares what a larger snapshot has behind it`(
    _ kind: String
  ) throws {
    let store = try Fixture()
    let volume = try store.create("v", 16 << 10)
    try store.write(volume, 7, 0..<16 << 10)
    try store.engine.snapshot([("v", "v@large")], createdSeconds: 0)
    try store.engine.resize("v", to: 8 << 10, allowsSmaller: true, force: true)
    try store.engine.resize("v", to: 8292, allowsSmaller: false, force: true)
    let stop = store.device.stop(.before, next: .sync)
    try inThreads([
      { try store.engine.rollback("v", to: "v@large", force: true) },
      {
        stop.waitUntilHit()
        switch kind {
        case "trim": try volume.discard(in: 0..<8292)
        default: try volume.zero(in: 0..<8292, keepsSpace: kind == "reserve")
        }
      },
      {
        stop.waitUntilHit()
        Self.letOthersCome()
        stop.letGo()
      },
    ])
    try store.check(volume, 8292..<16 << 10, is: 7, "what the snapshot has behind the old end")
    try store.checkStore()
  }

  @Test func `nothing is stored behind the end that a rollback brings while a write waits`() throws {
    let store = try Fixture()
    let volume = try store.create("v", 10_000)
    try store.write(volume, 1, 0..<10_000)
    try store.engine.snapshot([("v", "v@small")], createdSeconds: 0)
    try store.engine.resize("v", to: 10 << 10, allowsSmaller: false, force: false)
    // Whoever had it is gone, but for one request.
    store.engine.closeVolume(volume)
    let stop = store.device.stop(.before, next: .sync)
    try inThreads([
      { try store.engine.rollback("v", to: "v@small", force: false) },
      {
        stop.waitUntilHit()
        var code: ExtentFSError.Code?
        do { try store.write(volume, 9, 9 << 10..<10 << 10) } catch let error as ExtentFSError { code = error.code }
        guard code == .outOfRange else {
          throw CheckFailure("a write behind the end: \(String(describing: code))")
        }
      },
      {
        stop.waitUntilHit()
        Self.letOthersCome()
        stop.letGo()
      },
    ])
    try store.checkStore()
    try store.engine.resize("v", to: 12 << 10, allowsSmaller: false, force: false)
    try store.check(try store.open("v"), 10_000..<12 << 10, is: 0, "what lies behind the old end")
  }

  @Test func `a zero of a part of a block of a deleted volume is refused`() throws {
    let store = try Fixture()
    let volume = try store.create("v", 4096)
    try store.engine.delete(["v"], force: true)
    var code: ExtentFSError.Code?
    do { try volume.zero(in: 1..<5, keepsSpace: false) } catch { code = error.code }
    #expect(code == .deleted)
  }

  // MARK: Reading

  @Test func `the checksum of a block lives as long as a view that leads to it`() throws {
    // One page of checksums in each stripe, and so none that is not in use for long.
    let store = try Fixture(cache: 4096)
    let volume = try store.create("v", 40 << 20)
    for megabyte in 0..<20 as Range<UInt64> { try store.write(volume, 5, megabyte << 20..<(megabyte + 1) << 20) }
    // Room beside the first blocks, so that their page of checksums changes when others are written there.
    try volume.discard(in: 64 << 10..<1 << 20)
    try store.engine.checkpoint()
    let stop = store.device.stop(.after, next: .read) { $0.upperBound - $0.lowerBound == 64 << 10 }
    try inThreads([
      { try store.check(volume, 0..<64 << 10, is: 5, "what was there when the read began") },
      {
        stop.waitUntilHit()
        defer { stop.letGo() }
        try store.write(volume, 6, 0..<64 << 10)
        try store.engine.checkpoint()
        for megabyte in 20..<32 as Range<UInt64> { try store.write(volume, 7, megabyte << 20..<(megabyte + 1) << 20) }
        try store.engine.checkpoint()
        // Other pages take the place of that one in memory.
        for megabyte in 1..<32 as Range<UInt64> { _ = try store.read(volume, megabyte << 20..<megabyte << 20 + 1024) }
      },
    ])
  }

  @Test func `a group's record is found while checkpoints write over the tree that it is looked for in`() throws {
    // So small that what is given up is soon used again.
    let store = try Fixture(limit: 2 << 20, cache: 2048)
    let volume = try store.create("v", 200 << 10)
    try store.write(volume, 1, 0..<200 << 10)
    try store.engine.checkpoint()
    let block = store.engine.superblock.space.pointer.block
    // Takes the only place in the cache.
    _ = try store.engine.findVolume(named: "v")
    let stop = store.device.stop(.before, next: .read) { $0.lowerBound == block << 10 }
    try inThreads([
      { _ = try store.engine.space.records.record(of: 77) },
      {
        stop.waitUntilHit()
        defer { stop.letGo() }
        var isOver = false
        let isWritten = store.device.stop(.after, next: .write) { $0.lowerBound == block << 10 }
        isWritten.letGo()
        let before = try Self.bytes(of: block, store.device)
        for round in 0..<2000 where !isOver {
          try store.write(volume, UInt8(round % 200), 0..<1024)
          try store.engine.checkpoint()
          isOver = try Self.bytes(of: block, store.device) != before
        }
        guard isOver else { throw CheckFailure("the node was never written over") }
      },
    ])
  }

  private static func bytes(of block: UInt64, _ device: Device) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 1024)
    try bytes.withUnsafeMutableBytes { try device.base.read(into: $0, at: block << 10) }
    return bytes
  }

  // MARK: Who opens what is being changed

  @Test func `a volume that is rolled back is opened as the snapshot, also while that goes on`() throws {
    let store = try Fixture()
    let first = try store.create("v", 8192)
    try store.write(first, 1, 0..<8192)
    try store.engine.snapshot([("v", "v@one")], createdSeconds: 0)
    try store.write(first, 2, 0..<8192)
    store.engine.closeVolume(first)
    try Self.whileSyncing(store, { try store.engine.rollback("v", to: "v@one", force: false) }) {
      let volume = try store.open("v")
      try store.check(volume, 0..<4096, is: 1, "the first look")
      Self.letOthersCome()
      try store.check(volume, 4096..<8192, is: 1, "a later look")
    }
  }

  @Test func `a volume that is made smaller is opened with its new size, also while that goes on`() throws {
    let store = try Fixture()
    store.engine.closeVolume(try store.create("v", 8192))
    try Self.whileSyncing(
      store, { try store.engine.resize("v", to: 4096, allowsSmaller: true, force: false) }
    ) {
      let size = try store.open("v").byteCount
      if size != 4096 { throw CheckFailure("it was opened with \(size) bytes") }
    }
  }

  @Test func `a volume that becomes read-only is opened so, also while that goes on`() throws {
    let store = try Fixture()
    store.engine.closeVolume(try store.create("v", 8192))
    var change = VolumeAttributes()
    change.isReadOnly = true
    try Self.whileSyncing(store, { [change] in try store.engine.setAttributes(of: "v", change, force: false) }) {
      if try store.open("v").access != .readOnly { throw CheckFailure("it was opened for writing") }
    }
  }

  @Test func `a volume that is deleted is not opened while that goes on`() throws {
    let store = try Fixture()
    store.engine.closeVolume(try store.create("v", 8192))
    try Self.whileSyncing(store, { _ = try store.engine.delete(["v"], force: false) }) {
      if try store.engine.openVolume(named: "v") != nil { throw CheckFailure("it was opened") }
    }
  }

  @Test func `a volume can be opened again after its change was refused`() throws {
    let store = try Fixture()
    store.engine.closeVolume(try store.create("v", 8192))
    #expect(throws: ExtentFSError.self) {
      try store.engine.resize("v", to: 1000, allowsSmaller: true, force: false)
    }
    #expect(throws: ExtentFSError.self) { try store.engine.delete(["v", "not there"], force: false) }
    _ = try store.open("v")
  }

  /// Runs `change`, and `body` while that waits for its first sync.
  private static func whileSyncing(
    _ store: Fixture, _ change: @escaping @Sendable () throws -> Void, _ body: @escaping @Sendable () throws -> Void
  ) throws {
    let stop = store.device.stop(.before, next: .sync)
    try inThreads([
      change,
      {
        stop.waitUntilHit()
        try body()
      },
      {
        stop.waitUntilHit()
        letOthersCome()
        stop.letGo()
      },
    ])
  }

  // MARK: Verbs that compare first

  @Test func `what is asked as growth never makes a volume smaller`() throws {
    let store = try Fixture()
    let volume = try store.create("v", 64 << 10)
    try store.write(volume, 3, 0..<64 << 10)
    #expect(throws: ExtentFSError.self) {
      try store.engine.resize("v", to: 48 << 10, allowsSmaller: false, force: true)
    }
    // Nor one that has another size by now than the one that was looked at.
    #expect(throws: ExtentFSError.self) {
      try store.engine.resize("v", to: 48 << 10, from: 50 << 10, allowsSmaller: true, force: true)
    }
    #expect(volume.byteCount == 64 << 10)
    try store.check(volume, 0..<64 << 10, is: 3, "all of it")
  }

  @Test func `a volume is deleted with the snapshots that it has then, and with no others`() throws {
    let store = try Fixture()
    for name in ["v", "v2"] { store.engine.closeVolume(try store.create(name, 8192)) }
    try store.engine.snapshot([("v", "v@a"), ("v2", "v2@a")], createdSeconds: 0)
    let stop = store.device.stop(.before, next: .sync)
    try inThreads([
      { try store.engine.snapshot([("v", "v@late")], createdSeconds: 0) },
      {
        stop.waitUntilHit()
        let gone = try store.engine.delete(["v"], withSnapshots: true, force: false).map(\.record.name)
        if gone != ["v", "v@a", "v@late"] { throw CheckFailure("\(gone) are gone") }
      },
      {
        stop.waitUntilHit()
        Self.letOthersCome()
        stop.letGo()
      },
    ])
    let left = try store.engine.volumeRecords().filter { !$0.record.isTransient }.map(\.record.name)
    #expect(left == ["v2", "v2@a"])
  }

  @Test func `a volume is made with all its attributes or not at all`() throws {
    let store = try Fixture(limit: 8 << 20)
    var attributes = VolumeAttributes()
    attributes.quotaByteCount = 4096
    attributes.reservationByteCount = 8192
    #expect(throws: ExtentFSError.self) {
      _ = try store.engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0, attributes)
    }
    attributes.quotaByteCount = nil
    attributes.reservationByteCount = 100 << 20
    #expect(throws: ExtentFSError.self) {
      _ = try store.engine.createVolume(named: "v", byteCount: 1 << 30, createdSeconds: 0, attributes)
    }
    let found = try store.engine.findVolume(named: "v")
    #expect(found == nil)
    attributes.reservationByteCount = 1 << 20
    attributes.isReadOnly = true
    let volume = try store.engine.createVolume(named: "v", byteCount: 1 << 30, createdSeconds: 0, attributes)
    #expect(volume.access == .readOnly)
    #expect(store.engine.promisedBlockCount == 1024)
  }

  // MARK: Promises

  @Test func `two writes at once do not take more than a volume is promised`() throws {
    let store = try Fixture(limit: 8 << 20)
    let (filler, a, b) = (
      try store.create("filler", 1 << 30), try store.create("a", 1 << 20), try store.create("b", 1 << 20)
    )
    var change = VolumeAttributes()
    change.reservationByteCount = 1024
    try store.engine.setAttributes(of: "a", change, force: false)
    change.reservationByteCount = 16 << 10
    try store.engine.setAttributes(of: "b", change, force: false)
    var offset: UInt64 = 0
    var isFull = false
    while !isFull {
      do { try store.write(filler, 1, offset..<offset + 1024) } catch let error as ExtentFSError {
        guard error.code == .outOfSpace else { throw error }
        isFull = true
      }
      offset += 1024
    }
    let stop = store.device.stop(.before, next: .write) { $0.upperBound - $0.lowerBound == 1024 }
    let isSecondDone = ManagedAtomic(false)
    try inThreads([
      { try store.write(a, 2, 0..<1024) },
      {
        stop.waitUntilHit()
        do { try store.write(a, 3, 8192..<9216) } catch let error as ExtentFSError {
          guard error.code == .outOfSpace else { throw error }
          return
        }
        isSecondDone.store(true, ordering: .relaxed)
      },
      {
        stop.waitUntilHit()
        usleep(3_000_000)
        stop.letGo()
      },
    ])
    let tookTwo = isSecondDone.load(ordering: .relaxed)
    #expect(!tookTwo, "a second block was taken where one was promised")
    try store.write(b, 4, 0..<16 << 10)
  }
}
