import Bytes
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// A host that has no room for what the store writes, and then has some again: nothing acknowledged is lost, and nothing is final.
@Suite struct `A host without room` {
  private typealias Device = FaultyDevice<CrashDevice>

  /// A store with two volumes, one of which shares blocks with a snapshot, a deleted one that keeps its space, and changes of all that no
  /// checkpoint has merged.
  private struct Fixture {
    let base: CrashDevice
    let device: Device
    let engine: Engine
    var contents: [String: [UInt8]] = [:]

    static let size: UInt64 = 64 << 10

    init(journal: UInt64 = 65536) throws {
      base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 8 << 20, records: false)
      device = Device(base)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = journal
      try Engine.format(device, format)
      engine = try Engine.open(device, EngineOptions()).engine
      for name in ["a", "b", "gone"] {
        engine.closeVolume(try engine.createVolume(named: name, byteCount: Self.size, createdSeconds: 0))
        contents[name] = [UInt8](repeating: 0, count: Int(Self.size))
      }
      for (index, name) in ["a", "b", "gone"].enumerated() {
        for block in stride(from: 0, to: 64, by: 2) { try write(name, UInt8(1 + index), block, 1) }
      }
      try engine.snapshot([("a", "a@1")], createdSeconds: 0)
      contents["a@1"] = contents["a"]
      try engine.delete(["gone"], force: false)
      contents["gone"] = nil
      for block in stride(from: 1, to: 60, by: 3) { try write("a", 11, block, 2) }
      try write("b", 12, 0, 7)
      let volume = try open("a")
      defer { engine.closeVolume(volume) }
      try volume.discard(in: 8192..<16384)
      contents["a"]?.replaceSubrange(8192..<16384, with: repeatElement(0, count: 8192))
    }

    func open(_ name: String) throws -> DiskVolume {
      guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("there is no '\(name)'") }
      return volume
    }

    /// Writes whole blocks.
    mutating func write(_ name: String, _ byte: UInt8, _ block: Int, _ count: Int) throws {
      let volume = try open(name)
      defer { engine.closeVolume(volume) }
      let bytes = [UInt8](repeating: byte, count: count * 1024)
      try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(block) * 1024) }
      contents[name]?.replaceSubrange(block * 1024..<(block + count) * 1024, with: bytes)
    }

    /// The volumes are what was acknowledged, in this engine, and in one that finds the store as a killed process leaves it.
    func check(_ what: String) throws {
      try Self.check(engine, contents, what)
      try checkOpenedAnew(what)
    }

    func checkOpenedAnew(_ what: String) throws {
      let copy = CrashDevice(base.image, maximumByteCount: 8 << 20, records: false)
      let reader = try Engine.open(copy, EngineOptions(), readOnly: true).engine
      try Self.check(reader, contents, "\(what), opened for reading")
      let other = try Engine.open(copy, EngineOptions()).engine
      try Self.check(other, contents, "\(what), opened anew")
      try other.close()
      let findings = try StoreCheck.findings(on: copy)
      guard findings.isEmpty else { throw CheckFailure("\(what), opened anew: \(findings.prefix(3))") }
    }

    private static func check(_ engine: Engine, _ contents: [String: [UInt8]], _ what: String) throws {
      let names = try engine.volumeRecords().map(\.record).filter { $0.kind != .deleted }.map(\.name)
      guard Set(names) == Set(contents.keys) else { throw CheckFailure("\(what): there are \(names)") }
      for (name, expected) in contents {
        guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("\(what): no '\(name)'") }
        defer { engine.closeVolume(volume) }
        var bytes = [UInt8](repeating: 0xEE, count: Int(volume.byteCount))
        try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
        guard bytes == expected else { throw CheckFailure("\(what): '\(name)' is not what was written") }
      }
    }

    /// With room again, everything goes on, and the store is sound.
    mutating func goOn(_ what: String) throws {
      device.clearFaults()
      try write("b", 99, 20, 9)
      let volume = try open("b")
      try volume.flush()
      engine.closeVolume(volume)
      try engine.checkpoint()
      while try engine.dropDeleted() {}
      try check("\(what), with room again")
      let findings = try StoreCheck.findings(on: device)
      guard findings.isEmpty else { throw CheckFailure("\(what): \(findings.prefix(3))") }
      try engine.close()
    }
  }

  private static func lacksRoom(_ body: () throws -> Void) throws -> Bool {
    do { try body() } catch let error as ExtentFSError where error.isLackOfSpace { return true }
    return false
  }

  @Test(arguments: [0, 40]) func `fails the writes that meet it, and no others`(kept: Int) throws {
    var store = try Fixture()
    let journal = CrashStore.journalBytes
    store.device.setHost { operation, range in
      operation == .write && journal.contains(range.lowerBound) ? kept : nil
    }
    for round in 0..<3 {
      #expect(try Self.lacksRoom { try store.write("a", 50, round, 1) })
      let volume = try store.open("b")
      #expect(try Self.lacksRoom { try volume.discard(in: 0..<2048) })
      #expect(try Self.lacksRoom { try volume.zero(in: 0..<2048, keepsSpace: true) })
      // What was acknowledged can still be made durable.
      try volume.flush()
      store.engine.closeVolume(volume)
      try store.check("round \(round)")
    }
    try store.goOn("the journal")
  }

  /// What is done with the store while there is no room for one write of it.
  private struct Operation: Sendable {
    var name: String
    var run: @Sendable (Engine) throws -> Void
    /// What it makes of the contents.
    var change: @Sendable (inout [String: [UInt8]]) -> Void = { _ in }
  }

  private static let operations = [
    Operation(name: "checkpoint") { try $0.checkpoint() },
    Operation(name: "drop") { _ = try $0.dropDeleted() },
    Operation(name: "create") {
      $0.closeVolume(try $0.createVolume(named: "c", byteCount: 4096, createdSeconds: 0))
    } change: {
      $0["c"] = [UInt8](repeating: 0, count: 4096)
    },
    Operation(name: "snapshot") {
      try $0.snapshot([("a", "a@2"), ("b", "b@2")], createdSeconds: 0)
    } change: {
      ($0["a@2"], $0["b@2"]) = ($0["a"], $0["b"])
    },
    Operation(name: "clone") {
      try $0.clone("a@1", as: "c", createdSeconds: 0)
    } change: {
      $0["c"] = $0["a@1"]
    },
    Operation(name: "rollback") {
      try $0.rollback("a", to: "a@1", force: true)
    } change: {
      $0["a"] = $0["a@1"]
    },
    Operation(name: "rename") {
      try $0.rename("a", to: "z")
    } change: {
      ($0["z"], $0["z@1"], $0["a"], $0["a@1"]) = ($0["a"], $0["a@1"], nil, nil)
    },
    Operation(name: "shrink") {
      try $0.resize("b", to: 32768, allowsSmaller: true, force: true)
    } change: {
      $0["b"]?.removeLast(32768)
    },
    Operation(name: "delete") {
      try $0.delete(["a", "a@1"], force: true)
    } change: {
      ($0["a"], $0["a@1"]) = (nil, nil)
    },
    Operation(name: "set") {
      var change = VolumeAttributes()
      change.quotaByteCount = 1 << 20
      try $0.setAttributes(of: "b", change, force: true)
    },
  ]

  /// Each write of each operation once: the operation has not been, and can be done again.
  @Test(.slow, arguments: operations.indices)
  func `leaves all as it was where an operation meets it`(_ index: Int) throws {
    let operation = Self.operations[index]
    var count = 0
    while true {
      var store = try Fixture()
      // Somebody has the volumes open, and reads on.
      let users = try ["a", "b", "a@1"].map { try store.open($0) }
      let what = "\(operation.name), write \(count)"
      // The pieces of a batch are counted each, so that there is no room after any number of them.
      let written = Locked(0)
      store.device.setHost { [count] operation, range in
        guard operation == .write else { return nil }
        return written.withLock { written in
          defer { written += 1 }
          return written == count ? Int(range.length / 2) : nil
        }
      }
      let failed: Bool
      do {
        failed = try Self.lacksRoom { try operation.run(store.engine) }
      } catch { throw CheckFailure("\(what): \(error)") }
      guard failed else {
        #expect(count > 3, "\(operation.name) writes too little for this test")
        print("\(operation.name): \(count) writes")
        users.forEach { store.engine.closeVolume($0) }
        try store.engine.close()
        return
      }
      count += 1
      do { try store.engine.health.requireWritable() } catch {
        // Half of a superblock is there, which must not become a whole one later. Nothing else is final.
        guard "\(error)".contains("writing the superblock") else { throw CheckFailure("\(what): \(error)") }
        try store.checkOpenedAnew(what)
        continue
      }
      try store.check(what)
      // Writes go on meanwhile; then the operation is done after all.
      try store.write("a", 77, 3, 1)
      try store.write("b", 78, 1, 3)
      do { try operation.run(store.engine) } catch { throw CheckFailure("\(what), again: \(error)") }
      operation.change(&store.contents)
      users.forEach { store.engine.closeVolume($0) }
      try store.goOn(what)
    }
  }

  /// Lets the host have no room for bitmaps and checksums, which each checkpoint writes.
  private static func refuseCheckpoints(of device: Device) throws {
    guard let blockSize = BlockSize(byteCount: 1024) else { throw CheckFailure("no size of a block") }
    let geometry = try StoreGeometry(blockSize: blockSize, journalByteCount: 65536)
    let first = blockSize.offset(of: geometry.firstBlock(ofGroup: 0))
    let end = first + blockSize.offset(of: StoreGeometry.metadataBlocksPerGroup)
    device.setHost { operation, range in operation == .write && (first..<end).contains(range.lowerBound) ? 0 : nil }
  }

  @Test func `fails writes when the journal is full, and no longer when a checkpoint finds room`() throws {
    var store = try Fixture()
    try Self.refuseCheckpoints(of: store.device)
    var written = 0
    while try !Self.lacksRoom({ try store.write("b", UInt8(written % 250 + 1), written % 60, 2) }) {
      written += 1
      try check(written < 5000, "the journal never fills")
    }
    #expect(written > 100)
    #expect(store.engine.lackOfRoom != nil)
    #expect(try Self.lacksRoom { try store.engine.checkpoint() })
    try store.check("a full journal")
    store.device.clearFaults()
    try store.write("b", 5, 0, 2)
    #expect(store.engine.lackOfRoom == nil)
    try store.goOn("a full journal")
  }

  @Test(arguments: [ENOSPC, EDQUOT, EFBIG]) func `is one by whatever name`(_ errno: Int32) throws {
    var store = try Fixture()
    for _ in 0..<2 {
      store.device.inject(DeviceFault(.write, call: store.device.counts.writes, errno: errno, lasts: true))
      #expect(try Self.lacksRoom { try store.write("a", 50, 0, 1) })
      #expect(try Self.lacksRoom { try store.engine.checkpoint() })
      store.device.clearFaults()
      try store.write("a", 51, 0, 1)
    }
    try store.goOn("error \(errno)")
  }

  @Test func `lets the store be opened for reading`() throws {
    let store = try Fixture()
    let full = Device(CrashDevice(store.base.image, maximumByteCount: 8 << 20, records: false))
    full.setHost { _, _ in 0 }
    #expect(try Self.lacksRoom { _ = try Engine.open(full, EngineOptions()) })
    let engine = try Engine.open(full, EngineOptions(), readOnly: true).engine
    #expect(try engine.volumeRecords().filter { $0.record.kind != .deleted }.count == 3)
    full.setHost(nil)
    try Engine.open(full, EngineOptions()).engine.close()
    try store.check("as it was")
    try store.engine.close()
  }

  @Test func `is told in the background, and that it is over`() throws {
    var told: [RecordingLog.Line] = []
    let log = RecordingLog()
    func report() -> [RecordingLog.Line] { log.lines.filter { [.warning, .notice].contains($0.level) } }
    let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 8 << 20, records: false)
    let device = Device(base)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    var options = EngineOptions()
    options.checkpointSeconds = 1
    options.logger = log.logger
    let engine = try Engine.open(device, options).engine
    let volume = try engine.createVolume(named: "a", byteCount: 64 << 10, createdSeconds: 0)
    try engine.startCheckpoints()
    try Self.refuseCheckpoints(of: device)
    try [UInt8](repeating: 1, count: 8192).withUnsafeBytes { try volume.write($0, at: 0) }
    while told.isEmpty {
      usleep(10_000)
      told = report()
    }
    device.setHost(nil)
    while told.count < 2 {
      usleep(10_000)
      told = report()
    }
    #expect(told.map(\.level) == [.warning, .notice])
    #expect(told.first?.facts["error"] != nil)
    #expect(engine.lackOfRoom == nil)
    engine.closeVolume(volume)
    try engine.close()
    #expect(try StoreCheck.findings(on: device).isEmpty)
  }
}
