import Atomics
import Bytes
import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// A store with small blocks in memory.
private struct Fixture {
  let device: MemoryDevice
  var engine: Engine

  init(limit: UInt64 = 64 << 20, deletionStepNodeCount: Int = 1024) throws {
    device = try MemoryDevice(byteCount: 0, maximumByteCount: limit)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    var options = EngineOptions()
    options.limitByteCount = limit
    options.deletionStepNodeCount = deletionStepNodeCount
    engine = try Engine.open(device, options).engine
  }

  @discardableResult
  func create(_ name: String, kibibytes: Int = 400) throws -> DiskVolume {
    try engine.createVolume(named: name, byteCount: UInt64(kibibytes) << 10, createdSeconds: 7)
  }

  func volume(_ name: String) throws -> DiskVolume { try #require(try engine.openVolume(named: name)) }

  func snapshot(_ name: String) throws {
    try engine.snapshot([(String(VolumeName.volume(of: name)), name)], createdSeconds: 8)
  }

  /// Writes `byte` to each `step`th block from `first` on.
  func fill(_ volume: DiskVolume, _ byte: UInt8, first: Int = 0, step: Int = 2) throws {
    let bytes = [UInt8](repeating: byte, count: 1024)
    for block in stride(from: first, to: Int(volume.byteCount) / 1024, by: step) {
      try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(block) << 10) }
    }
  }

  func contents(_ name: String) throws -> [UInt8] {
    let volume = try volume(name)
    defer { engine.closeVolume(volume) }
    var bytes = [UInt8](repeating: 0, count: Int(volume.byteCount))
    try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    return bytes
  }

  /// Gives back all that is deleted, and checks the store.
  func settle() throws {
    while try engine.dropDeleted() {}
    try engine.checkpoint()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  /// How many blocks are not free, for whichever reason.
  var takenCount: UInt64 {
    engine.geometry.usableBlockCount(inDeviceOf: engine.space.blockCount) - engine.space.freeBlockCount
  }

  /// How many blocks hold data.
  var dataCount: UInt64 { engine.superblock.usedBlockCount - engine.superblock.nodeBlockCount }
}

private func expectError(_ code: ExtentFSError.Code, _ body: () throws -> Void) {
  let error = #expect(throws: ExtentFSError.self) { try body() }
  #expect(error?.code == code, "\(String(describing: error))")
}

@Suite struct NamespaceTests {
  @Test func `what cannot be done is refused, and says why`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.snapshot("vm@a")
    expectError(.nameTaken) { try store.create("vm") }
    expectError(.nameTaken) { try store.snapshot("vm@a") }
    expectError(.nameTaken) { try store.engine.clone("vm@a", as: "vm", createdSeconds: 0) }
    expectError(.noSuchVolume) { try store.snapshot("other@a") }
    expectError(.noSuchVolume) { try store.engine.clone("vm@b", as: "c", createdSeconds: 0) }
    expectError(.noSuchVolume) { try store.engine.delete(["vm@a", "vm@b"], force: false) }
    expectError(.noSuchVolume) { try store.engine.rollback("vm", to: "vm@b", force: true) }
    expectError(.invalidArgument) { try store.engine.snapshot([("vm", "vn@a")], createdSeconds: 0) }
    expectError(.invalidArgument) { try store.engine.snapshot([("vm", "vm@a..b")], createdSeconds: 0) }
    expectError(.invalidArgument) { try store.engine.rename("vm", to: "a//b") }
    expectError(.invalidArgument) { try store.engine.rename("vm@a", to: "vn@a") }
    expectError(.invalidArgument) { try store.engine.resize("vm", to: 1025, allowsSmaller: true, force: true) }
    expectError(.invalidArgument) { try store.engine.resize("vm", to: 0, allowsSmaller: true, force: true) }
    expectError(.readOnly) { try store.engine.resize("vm@a", to: 2048, allowsSmaller: true, force: true) }
    expectError(.readOnly) { try store.engine.rollback("vm@a", to: "vm", force: true) }
    expectError(.busy) { try store.engine.delete(["vm"], force: false) }
    expectError(.busy) { try store.engine.rollback("vm", to: "vm@a", force: false) }
    expectError(.busy) { try store.engine.resize("vm", to: 2048, allowsSmaller: true, force: false) }
    // None of that has changed anything, and the store still works.
    #expect(try store.engine.volumeRecords().map(\.record.name) == ["vm", "vm@a"])
    store.engine.closeVolume(volume)
    try store.engine.delete(["vm"], force: false)
    #expect(try store.engine.volumeRecords().map(\.record.name) == ["vm@a"])
    try store.settle()
  }

  @Test func `a snapshot refuses writes, and a deleted volume everything`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.fill(volume, 1)
    try store.snapshot("vm@a")
    expectError(.readOnly) { try store.fill(try store.volume("vm@a"), 2) }
    try store.engine.delete(["vm"], force: true)
    expectError(.deleted) { try [UInt8(3)].withUnsafeBytes { try volume.write($0, at: 0) } }
    expectError(.deleted) { try volume.flush() }
    var byte: UInt8 = 0
    expectError(.deleted) { try withUnsafeMutableBytes(of: &byte) { try volume.read(into: $0, at: 0) } }
    #expect(try store.engine.openVolume(named: "vm") == nil)
    #expect(try store.contents("vm@a")[0] == 1)
    try store.settle()
  }

  @Test func `two clones written at once never see each other`() throws {
    let store = try Fixture()
    try store.fill(try store.create("golden"), 1, step: 1)
    try store.snapshot("golden@1")
    for name in ["a", "b"] { try store.engine.clone("golden@1", as: name, createdSeconds: 0) }
    let clones = try [store.volume("a"), store.volume("b")]
    try inThreads(2) { number in
      for round in 0..<20 {
        let bytes = [UInt8](repeating: UInt8(10 + 100 * number), count: 1024)
        for block in stride(from: round % 3, to: 400, by: 3) {
          try bytes.withUnsafeBytes { try clones[number].write($0, at: UInt64(block) << 10) }
        }
        if round % 5 == number { try store.engine.checkpoint() }
      }
    }
    #expect(try store.contents("a") == [UInt8](repeating: 10, count: 400 << 10))
    #expect(try store.contents("b") == [UInt8](repeating: 110, count: 400 << 10))
    #expect(try store.contents("golden") == [UInt8](repeating: 1, count: 400 << 10))
    try store.settle()
  }

  private static let tree = ["v", "v@1", "c", "c@1", "d"]

  /// v, a snapshot, its clone, a snapshot of that, and its clone; each has written something of its own.
  private func makeTree() throws -> Fixture {
    let store = try Fixture()
    try store.fill(try store.create("v"), 1, step: 1)
    try store.snapshot("v@1")
    try store.fill(try store.volume("v"), 2, step: 3)
    try store.engine.clone("v@1", as: "c", createdSeconds: 0)
    try store.fill(try store.volume("c"), 3, step: 5)
    try store.snapshot("c@1")
    try store.fill(try store.volume("c"), 4, step: 7)
    try store.engine.clone("c@1", as: "d", createdSeconds: 0)
    try store.fill(try store.volume("d"), 5, step: 11)
    try store.engine.checkpoint()
    return store
  }

  @Test(.slow) func `a tree of five deleted in each of its orders gives back exactly its space`() throws {
    func orders(_ names: [String]) -> [[String]] {
      names.isEmpty ? [[]] : names.flatMap { name in orders(names.filter { $0 != name }).map { [name] + $0 } }
    }
    for order in orders(Self.tree) {
      let store = try makeTree()
      var left: [String: [UInt8]] = [:]
      for name in Self.tree { left[name] = try store.contents(name) }
      for name in order {
        let account = try store.engine.spaceAccount(of: name)
        let before = store.dataCount
        try store.engine.delete([name], force: true)
        left[name] = nil
        try store.settle()
        #expect(before - store.dataCount == account.exclusiveDataCount, "\(name) of \(order)")
        for (name, bytes) in left { #expect(try store.contents(name) == bytes, "\(name) of \(order)") }
      }
      #expect(store.dataCount == 0 && store.engine.superblock.shared.isEmpty, "\(order)")
    }
  }

  @Test func `a half deleted volume is sound, and counts what is left of it`() throws {
    let store = try Fixture(deletionStepNodeCount: 3)
    let volume = try store.create("vm")
    try store.fill(volume, 1)
    try volume.zero(in: 300 << 10..<350 << 10, keepsSpace: true)
    try store.snapshot("vm@1")
    try store.fill(volume, 2, step: 40)
    try store.engine.delete(["vm", "vm@1"], force: true)
    var lefts: [UInt64] = []
    repeat {
      #expect(try StoreCheck.findings(on: store.device) == [])
      let deleted = try store.engine.volumeRecords().map(\.record)
      #expect(deleted.allSatisfy { $0.kind == .deleted })
      lefts.append(deleted.reduce(0) { $0 + $1.mappedBlocks })
    } while try store.engine.dropDeleted()
    #expect(Set(lefts).count > 4 && lefts == lefts.sorted(by: >) && lefts.last == 0, "\(lefts)")
    #expect(store.dataCount == 0)
  }

  @Test func `what volumes share counts for none of them, and comes back with the last`() throws {
    let store = try makeTree()
    let accounts = try Self.tree.map { try store.engine.spaceAccount(of: $0) }
    #expect(accounts.map(\.mappedCount) == [400, 400, 400, 400, 400])
    // What v, c and d wrote last is their own; the snapshots have what the others have overwritten.
    #expect(accounts[0].exclusiveDataCount == 134 && accounts[2].exclusiveDataCount == 58)
    #expect(accounts[4].exclusiveDataCount == 37)
    #expect(accounts.allSatisfy { $0.sharedDataCount + $0.exclusiveDataCount == 400 })
  }

  @Test func `renaming a volume takes its snapshots with it`() throws {
    let store = try makeTree()
    let (volume, snapshot) = (try store.contents("v"), try store.contents("v@1"))
    try store.engine.rename("v", to: "vms/web")
    #expect(try store.contents("vms/web") == volume)
    #expect(try store.contents("vms/web@1") == snapshot)
    #expect(try store.engine.openVolume(named: "v") == nil && store.engine.openVolume(named: "v@1") == nil)
    try store.engine.rename("vms/web@1", to: "vms/web@2")
    #expect(try store.contents("vms/web@2") == snapshot)
    try store.settle()
  }

  @Test func `a rollback gives back contents and size, and newer snapshots survive`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.fill(volume, 1)
    try store.snapshot("vm@1")
    let first = try store.contents("vm")
    try store.engine.resize("vm", to: 500 << 10, allowsSmaller: true, force: true)
    try store.fill(volume, 2, first: 1)
    try store.snapshot("vm@2")
    let second = try store.contents("vm")
    try store.engine.rollback("vm", to: "vm@1", force: true)
    #expect(try store.contents("vm") == first && store.contents("vm@2") == second)
    // The one who had it open sees that, and can write.
    #expect(volume.byteCount == 400 << 10)
    try store.fill(volume, 9, step: 4)
    try store.engine.rollback("vm", to: "vm@2", force: true)
    #expect(try store.contents("vm") == second && store.contents("vm@1") == first)
    try store.settle()
    try store.engine.delete(["vm", "vm@1", "vm@2"], force: true)
    try store.settle()
    #expect(store.dataCount == 0)
  }

  @Test func `a volume that was made smaller has lost what lay behind its end`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    try store.fill(volume, 1, step: 1)
    try store.engine.resize("vm", to: 100 << 10, allowsSmaller: true, force: true)
    expectError(.outOfRange) {
      try store.fill(volume, 2, first: 300); try [1].withUnsafeBytes { try volume.write($0, at: 100 << 10) }
    }
    try store.engine.resize("vm", to: 400 << 10, allowsSmaller: true, force: true)
    let bytes = try store.contents("vm")
    #expect(bytes[..<(100 << 10)].allSatisfy { $0 == 1 } && bytes[(100 << 10)...].allSatisfy { $0 == 0 })
    #expect(store.dataCount == 100)
    try store.settle()
  }

  @Test func `a volume with a quota maps no more, and goes on overwriting`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    var attributes = VolumeAttributes()
    attributes.quotaByteCount = 100 << 10
    try store.engine.setAttributes(of: "vm", attributes, force: false)
    try store.fill(volume, 1, step: 4)
    expectError(.quotaReached) { try store.fill(volume, 2, first: 1, step: 4) }
    for byte in 3..<8 { try store.fill(volume, UInt8(byte), step: 4) }
    try volume.discard(in: 0..<(4 << 10))
    try store.fill(volume, 9, step: 400)
    expectError(.quotaReached) { try store.fill(volume, 2, first: 1, step: 400) }
    attributes.quotaByteCount = 0
    try store.engine.setAttributes(of: "vm", attributes, force: false)
    try store.fill(volume, 2, step: 1)
    try store.settle()
    #expect(try store.engine.spaceAccount(of: "vm").mappedCount == 400)
  }

  @Test func `what is reserved for one volume is there when others have filled the store`() throws {
    let store = try Fixture(limit: 2 << 20)
    let mine = try store.create("mine")
    let other = try store.create("other", kibibytes: 4000)
    var attributes = VolumeAttributes()
    attributes.reservationByteCount = 401 << 10
    expectError(.invalidArgument) { try store.engine.setAttributes(of: "mine", attributes, force: false) }
    attributes.reservationByteCount = 300 << 10
    try store.engine.setAttributes(of: "mine", attributes, force: false)
    expectError(.outOfSpace) { try store.fill(other, 1, step: 1) }
    try store.fill(mine, 2, step: 2)
    #expect(try store.contents("mine")[0] == 2)
    attributes.reservationByteCount = 400 << 10
    expectError(.outOfSpace) { try store.engine.setAttributes(of: "mine", attributes, force: false) }
    try store.settle()
  }

  @Test func `a volume that became read-only refuses writes until it is writable again`() throws {
    let store = try Fixture()
    let volume = try store.create("vm")
    var attributes = VolumeAttributes()
    attributes.isReadOnly = true
    expectError(.busy) { try store.engine.setAttributes(of: "vm", attributes, force: false) }
    try store.engine.setAttributes(of: "vm", attributes, force: true)
    expectError(.readOnly) { try store.fill(volume, 1) }
    attributes.isReadOnly = false
    try store.engine.setAttributes(of: "vm", attributes, force: false)
    try store.fill(volume, 1)
    try store.settle()
  }

  @Test func `throwaways come and go without a write, and leave nothing behind`() throws {
    let store = try Fixture()
    try store.fill(try store.create("golden"), 1, step: 1)
    try store.snapshot("golden@1")
    try store.engine.checkpoint()
    let generation = store.engine.superblock.generation
    for _ in 0..<1000 { try store.engine.discardEphemeralClone(try store.engine.makeEphemeralClone(of: "golden@1")) }
    #expect(store.engine.superblock.generation == generation)
    let (used, taken) = (store.engine.superblock.usedBlockCount, store.takenCount)
    for round in 0..<50 {
      let volume = try store.engine.makeEphemeralClone(of: "golden@1")
      try store.fill(volume, 2, first: round)
      if round % 5 == 0 { try store.engine.checkpoint() }
      try store.fill(volume, 3, first: round, step: 3)
      try store.engine.discardEphemeralClone(volume)
    }
    try store.settle()
    #expect(store.engine.superblock.usedBlockCount == used && store.takenCount == taken)
    #expect(store.engine.volumes.count <= 1)
    #expect(try store.contents("golden@1").allSatisfy { $0 == 1 })
  }

  @Test func `a promoted throwaway keeps what was written before and is written after`() throws {
    var store = try Fixture()
    try store.fill(try store.create("golden"), 1, step: 1)
    let volume = try store.engine.makeEphemeralClone(of: "golden")
    try store.fill(volume, 2, step: 2)
    try store.engine.promote(volume, as: "kept")
    try store.fill(volume, 3, step: 5)
    try volume.flush()
    // As after the death of the process.
    store.engine = try Engine.open(store.device, EngineOptions()).engine
    let bytes = try store.contents("kept")
    for block in 0..<400 {
      #expect(bytes[block << 10] == (block % 5 == 0 ? 3 : block % 2 == 0 ? 2 : 1))
    }
    try store.settle()
  }

  /// Threads write numbers from one counter, each to blocks of its own, so that for every block one knows when which was there.
  @Test func `snapshots under writers have what was written before, as of one instant`() throws {
    let store = try Fixture()
    let blockCount = 64
    let volume = try store.create("vm", kibibytes: blockCount)
    let engine = store.engine
    let clock = ManagedAtomic<UInt64>(1)
    let isOver = ManagedAtomic(false)
    /// What each block was written with, and when that was over, one list for each thread.
    let history = Locked<[[(number: UInt64, end: UInt64)]]>(Array(repeating: [], count: blockCount))
    let asked = Locked<[UInt64]>([])
    try inThreads(5) { thread in
      if thread == 4 {
        defer { isOver.store(true, ordering: .relaxed) }
        for number in 0..<12 {
          asked.withLock { $0.append(clock.load(ordering: .relaxed)) }
          try engine.snapshot([("vm", "vm@\(number)")], createdSeconds: 0)
        }
        return
      }
      var count = 0
      while !isOver.load(ordering: .relaxed) || count < blockCount {
        let block = count % (blockCount / 4) * 4 + thread
        count += 1
        let number = clock.wrappingIncrementThenLoad(ordering: .relaxed)
        let words = [UInt64](repeating: number, count: 128)
        try words.withUnsafeBytes { try volume.write($0, at: UInt64(block) << 10) }
        let end = clock.wrappingIncrementThenLoad(ordering: .relaxed)
        history.withLock { $0[block].append((number, end)) }
      }
    }
    let writes = history.withLock { $0 }
    for (number, asked) in asked.withLock({ $0 }).enumerated() {
      let words = try store.contents("vm@\(number)").withUnsafeBytes { Array($0.bindMemory(to: UInt64.self)) }
      var (latestBegin, earliestEnd) = (UInt64(0), UInt64.max)
      for block in 0..<blockCount {
        let found = words[block * 128]
        #expect(words[block * 128..<(block + 1) * 128].allSatisfy { $0 == found }, "block \(block) is torn")
        let next = writes[block].firstIndex { $0.number > found }
        if let next {
          earliestEnd = min(earliestEnd, writes[block][next].end)
          // What was over when the snapshot was asked for is in it.
          #expect(writes[block][next].end > asked, "block \(block) of snapshot \(number) is too old")
        }
        latestBegin = max(latestBegin, found)
      }
      #expect(latestBegin <= earliestEnd, "the blocks of snapshot \(number) are not of one instant")
    }
    #expect(writes.allSatisfy { $0.count > 1 })
    try store.settle()
  }
}
