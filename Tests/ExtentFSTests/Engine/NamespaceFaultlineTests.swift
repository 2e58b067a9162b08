import Atomics
import Bytes
import Devices
import Extents
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// A store with small blocks in memory.
private struct Fixture: Sendable {
  let device: MemoryDevice
  let engine: Engine
  let options: EngineOptions

  init(
    limit: UInt64 = 64 << 20, journal: UInt64 = 65536, hasSnapshots: Bool = true, blockByteCount: Int = 1024
  ) throws {
    device = try MemoryDevice(byteCount: 0, maximumByteCount: limit)
    var format = FormatOptions()
    format.blockByteCount = blockByteCount
    format.journalByteCount = journal
    try Engine.format(device, format)
    if !hasSnapshots {
      var (superblock, slot) = try device.newestSuperblock()
      (superblock.incompatibleFeatures, superblock.featureNames) = (0, [])
      try device.writeSuperblock(superblock, slot: slot)
    }
    var options = EngineOptions()
    options.limitByteCount = limit
    self.options = options
    engine = try Engine.open(device, options).engine
  }

  @discardableResult
  func create(_ name: String, kibibytes: Int = 400) throws -> DiskVolume {
    try engine.createVolume(named: name, byteCount: UInt64(kibibytes) << 10, createdSeconds: 7)
  }

  /// Writes `byte` to each `step`th block.
  func fill(_ volume: DiskVolume, _ byte: UInt8, first: Int = 0, step: Int = 2) throws {
    for block in stride(from: first, to: Int(volume.byteCount) / 1024, by: step) { try write(volume, byte, block) }
  }

  func write(_ volume: DiskVolume, _ byte: UInt8, _ block: Int, count: Int = 1) throws {
    let bytes = [UInt8](repeating: byte, count: 1024 * count)
    try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(block) << 10) }
  }

  func firstByte(_ volume: DiskVolume) throws -> UInt8 {
    var byte: UInt8 = 0
    try withUnsafeMutableBytes(of: &byte) { try volume.read(into: $0, at: 0) }
    return byte
  }

  /// Writes until the store is full.
  func fillUp(_ volume: DiskVolume) throws {
    do {
      let size = engine.blockSize.byteCount
      let bytes = [UInt8](repeating: 9, count: size)
      for block in 0..<Int(volume.byteCount) / size {
        try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(block * size)) }
      }
    } catch let error as ExtentFSError where error.code == .outOfSpace {
    }
  }
}

@Suite struct NamespaceFaultlineTests {
  @Test func `a flushed write to a volume that is opened while a checkpoint begins survives a crash`() throws {
    let store = try Fixture()
    let a = try store.create("a")
    store.engine.closeVolume(try store.create("b"))
    try store.write(a, 1, 0)
    try store.engine.checkpoint()
    try #require(store.engine.volumes.count == 1)
    try store.write(a, 2, 0)
    let (isHeld, isWritten) = (ManagedAtomic(false), ManagedAtomic(false))
    @Sendable func wait(for flag: ManagedAtomic<Bool>) { while !flag.load(ordering: .acquiring) { usleep(100) } }
    try inThreads([
      {
        a.state.lockWriters()
        isHeld.store(true, ordering: .releasing)
        wait(for: isWritten)
        a.state.unlockWriters()
      },
      {
        wait(for: isHeld)
        try store.engine.checkpoint()
      },
      {
        defer { isWritten.store(true, ordering: .releasing) }
        wait(for: isHeld)
        // The checkpoint has looked which volumes there are, and waits for the one.
        usleep(300_000)
        guard let b = try store.engine.openVolume(named: "b") else { throw CheckFailure("b is not there") }
        try store.write(b, 7, 0)
        try b.flush()
      },
    ])
    let engine = try Engine.open(store.device, store.options).engine
    let b = try #require(try engine.openVolume(named: "b"))
    #expect(try store.firstByte(b) == 7)
  }

  @Test func `a write that waits for the journal counts once against a quota`() throws {
    let store = try Fixture()
    let (a, b) = (try store.create("a"), try store.create("b"))
    var change = VolumeAttributes()
    change.quotaByteCount = 8192
    try store.engine.setAttributes(of: "a", change, force: false)
    var block = 0
    while store.engine.journal.usedByteCount <= 65536 - 16384 - 8192 - 112 {
      try store.write(b, 1, block % 400)
      block += 1
    }
    try store.write(a, 1, 0, count: 8)
    try store.write(a, 2, 0, count: 8)
  }

  @Test func `a store is sound while a volume with reserved zeroes waits to be given back`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.fill(volume, 1)
    try volume.zero(in: 100 << 10..<200 << 10, keepsSpace: true)
    try store.engine.checkpoint()
    #expect(try StoreCheck.findings(on: store.device) == [])
    try store.engine.delete(["vm"], force: true)
    let findings = try StoreCheck.findings(on: store.device)
    #expect(findings == [])
  }

  @Test(.slow) func `a store is sound when half of a volume is given back`() throws {
    let store = try Fixture(limit: 1 << 30, journal: 16 << 20)
    let volume = try store.create("vm", kibibytes: 400_000)
    try store.fill(volume, 1)
    try store.engine.checkpoint()
    #expect(try StoreCheck.findings(on: store.device, readsData: false) == [])
    try store.engine.delete(["vm"], force: true)
    #expect(try store.engine.dropDeleted())
    try #require(try store.engine.deletionBacklog().count == 1)
    let findings = try StoreCheck.findings(on: store.device, readsData: false)
    #expect(findings == [])
  }

  @Test func `damage in what a deleted volume and its deleted snapshot share does not end the store`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    let other = try store.create("other")
    try store.fill(volume, 1)
    try store.write(other, 1, 0)
    try store.engine.snapshot([("vm", "vm@a")], createdSeconds: 0)
    let record = try #require(try store.engine.findVolume(named: "vm")?.record)
    let root = try store.engine.nodes.root(record.extents, kind: .extents, owner: 0)
    try #require(root.level > 0)
    let block = root.child(at: 0).block
    try store.engine.delete(["vm", "vm@a"], force: true)
    try store.engine.close()
    try [UInt8](repeating: 0x5A, count: 1024).withUnsafeBytes { try store.device.write($0, at: block << 10) }
    let engine = try Engine.open(store.device, store.options).engine
    _ = try? engine.dropDeleted()
    try engine.health.requireWritable()
    let again = try #require(try engine.openVolume(named: "other"))
    try store.write(again, 2, 0)
  }

  @Test func `a clone gives an older store the feature that says that blocks are shared`() throws {
    let store = try Fixture(hasSnapshots: false)
    try store.fill(try store.create("a"), 1)
    try store.engine.clone("a", as: "b", createdSeconds: 0)
    let findings = try StoreCheck.findings(on: store.device)
    #expect(findings == [])
    let hasFeature = store.engine.superblock.has(.snapshots)
    #expect(hasFeature)
  }

  @Test func `a difference from a snapshot that was deleted is refused`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.fill(volume, 1)
    try store.engine.snapshot([("vm", "vm@a")], createdSeconds: 0)
    try volume.discard(in: 0..<1024)
    try store.engine.snapshot([("vm", "vm@b")], createdSeconds: 0)
    let a = try #require(try store.engine.openVolume(named: "vm@a"))
    let b = try #require(try store.engine.openVolume(named: "vm@b"))
    func differences() throws -> [RangeContent] {
      var found: [RangeContent] = []
      try store.engine.forEachDifference(from: a, to: b, in: 0..<1024) { _, kind in
        found.append(kind)
        return true
      }
      return found
    }
    #expect(try differences() == [.hole])
    try store.engine.delete(["vm@a"], force: true)
    let error = #expect(throws: ExtentFSError.self) { try differences() }
    #expect(error?.code == .deleted)
  }

  @Test func `checkpoints of a full store while somebody reads an old one do not end it`() throws {
    let store = try Fixture(limit: 2 << 20)
    let volume = try store.create("vm", kibibytes: 4000)
    try store.fillUp(volume)
    try store.engine.checkpoint()
    let reader = store.engine.superblocks.catalog
    for block in stride(from: 0, to: 800, by: 2) {
      do throws(ExtentFSError) {
        try volume.discard(in: UInt64(block) << 10..<UInt64(block + 1) << 10)
        try store.engine.checkpoint()
      } catch {
        guard error.code == .outOfSpace else { throw error }
      }
      do { try store.engine.health.requireWritable() } catch {
        Issue.record("after \(block / 2) checkpoints: \(error)")
        break
      }
    }
    withExtendedLifetime(reader) {}
  }

  @Test(arguments: [(1024, 50), (1024, 150), (1024, 400), (4096, 400), (4096, 2000), (4096, 4000)])
  func `throwaways of a full store do not end it`(_ blockByteCount: Int, _ count: Int) throws {
    let store = try Fixture(limit: UInt64(blockByteCount) << 11, blockByteCount: blockByteCount)
    let volume = try store.create("vm", kibibytes: 4 * blockByteCount)
    try store.engine.snapshot([("vm", "vm@a")], createdSeconds: 0)
    try store.fillUp(volume)
    try store.engine.checkpoint()
    var throwaways: [DiskVolume] = []
    do throws(ExtentFSError) {
      for _ in 0..<count { throwaways.append(try store.engine.makeEphemeralClone(of: "vm@a")) }
    } catch {
      #expect(error.code == .outOfSpace)
    }
    try volume.discard(in: 0..<UInt64(blockByteCount))
    do throws(ExtentFSError) { try store.engine.checkpoint() } catch { #expect(error.code == .outOfSpace) }
    try store.engine.health.requireWritable()
  }

  @Test func `what space a volume has is counted in no more steps than there are nodes, whatever its tree`() throws {
    let store = try Fixture()
    store.engine.closeVolume(try store.create("vm"))
    let engine = store.engine
    let height = 4
    try engine.checkpoints.run { (plan: inout CheckpointPlan) throws(ExtentFSError) in
      var (inode, record) = try plan.catalog.find(existing: "vm")
      let run = try engine.space.allocate(upTo: UInt64(height), near: nil, purpose: .metadata)
      var below = BlockPointer.null
      for level in 0..<height {
        // Each node above a leaf has one child many times.
        let entries: [UInt64] =
          level == 0
          ? [0, 0, 1 << 32 | 1]
          : (0..<29 as Range<UInt64>).flatMap {
            [$0, below.block, below.generation, UInt64(below.checksum)]
          }
        let node = entries.withUnsafeBytes {
          Node.make(
            .extents, level: level, owner: inode, block: run.block + UInt64(level), generation: 1, blockByteCount: 1024,
            count: level == 0 ? 1 : 29, entries: $0)
        }
        engine.nodes.insert(node)
        below = node.pointer
      }
      record.extents = TreeRoot(pointer: below, height: height)
      try plan.catalog.setRecord(record, of: inode)
    }
    do throws(ExtentFSError) {
      let account = try engine.spaceAccount(of: "vm")
      #expect(account.exclusiveNodeCount <= UInt64(height))
    } catch {
      #expect(error.code == .damaged)
    }
  }

  @Test func `an inode that claims the most reserved blocks there are is no reason to crash`() async {
    await #expect(processExitsWith: .success) {
      let store = try Fixture()
      var record = InodeRecord(kind: .volume, name: "vm", byteCount: 1024, createdSeconds: 0)
      (record.reservedBlocks, record.reservationBlocks) = (1 << 62, 1 << 62)
      // It is one that can be read from a device.
      record = try encoded(InodeRecord.encodedByteCount, record.encode).withUnsafeBytes {
        try InodeRecord(decoding: RawSpan(_unsafeBytes: $0), at: 0)
      }
      try store.engine.checkpoints.withTurn { turn throws(ExtentFSError) in
        try turn.makeCatalogEditor().setRecord(record, of: 1)
      }
    }
  }

  @Test func `a snapshot of a tree whose root is nowhere is no reason to crash`() async {
    await #expect(processExitsWith: .success) {
      let store = try Fixture()
      store.engine.closeVolume(try store.create("vm"))
      try store.engine.checkpoints.run { (plan: inout CheckpointPlan) throws(ExtentFSError) in
        var (inode, record) = try plan.catalog.find(existing: "vm")
        record.extents = TreeRoot(pointer: BlockPointer(block: .max, generation: 1, checksum: 0), height: 1)
        try plan.catalog.setRecord(record, of: inode)
      }
      try? store.engine.snapshot([("vm", "vm@a")], createdSeconds: 0)
    }
  }

  @Test func `a superblock that counts the most transient inodes there are is no reason to crash`() async {
    await #expect(processExitsWith: .success) {
      let store = try Fixture()
      let superblocks = store.engine.superblocks
      var superblock = superblocks.newest
      (superblock.nextInode, superblock.transientCount) = (1 << 63, 1 << 63)
      _ = superblocks.commit(superblock, slot: superblocks.slot, retiring: [])
      var record = InodeRecord(kind: .deleted, name: "", byteCount: 1024, createdSeconds: 0)
      record.mappedBlocks = 1
      try store.engine.checkpoints.withTurn { turn throws(ExtentFSError) in
        try turn.makeCatalogEditor().setRecord(record, of: 1)
      }
    }
  }
}
