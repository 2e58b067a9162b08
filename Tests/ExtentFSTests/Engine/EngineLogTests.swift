import Bytes
import Devices
import Foundation
import LacunaTestSupport
import Logging
import Testing

@testable import ExtentFS

@Suite(.timeLimit(.minutes(1))) struct `The log of an engine` {
  /// An engine with a volume, and what it logs.
  private struct Fixture {
    let device: FaultyDevice<CrashDevice>
    let log: RecordingLog
    let engine: Engine
    let volume: DiskVolume

    init(slow: Duration = .seconds(3600), _ log: RecordingLog = RecordingLog()) throws {
      let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 8 << 20, records: false)
      device = FaultyDevice(base)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 65536
      try Engine.format(device, format)
      self.log = log
      var options = EngineOptions()
      options.logger = log.logger
      options.slowCheckpointDuration = slow
      engine = try Engine.open(device, options).engine
      volume = try engine.createVolume(named: "a", byteCount: 1 << 20, createdSeconds: 0)
    }

    func write(at offset: UInt64, byteCount: Int = 1024) throws {
      try [UInt8](repeating: 1, count: byteCount).withUnsafeBytes { try volume.write($0, at: offset) }
    }

    func close() throws {
      engine.closeVolume(volume)
      try engine.close()
    }
  }

  @Test func `recovery is one line with counts`() throws {
    let store = try Fixture()
    for offset in [0, 2048, 4096] as [UInt64] { try store.write(at: offset) }
    try store.volume.flush()
    let copy = CrashDevice(store.device.base.image, maximumByteCount: 8 << 20, records: false)
    try store.close()
    let log = RecordingLog()
    var options = EngineOptions()
    options.logger = log.logger
    try Engine.open(copy, options).engine.close()
    let lines = log.lines.filter { $0.level == .info }
    #expect(lines.count == 1 && log.lines.count == 1, "\(log.lines)")
    let facts = try #require(lines.first?.facts)
    #expect(facts.keys.sorted() == ["leftOutWrites", "milliseconds", "records", "volumes"])
    #expect(
      facts["volumes"] == "1" && facts["leftOutWrites"] == "0" && Int(facts["records"] ?? "") ?? 0 >= 3, "\(facts)")
  }

  @Test func `the first failure is one line, and no lock is held when it is logged`() throws {
    let log = RecordingLog()
    let store = try Fixture(log)
    let engine = store.engine
    // A handler that needs the locks of the engine would wait here for ever, were one of them held.
    log.onLine { if $0.level == .error { try? engine.checkpoint() } }
    store.device.inject(DeviceFault(.sync, call: store.device.counts.syncs, errno: EIO, lasts: true))
    try store.write(at: 0)
    // Fails while it holds a lock.
    #expect(throws: ExtentFSError.self) { try store.engine.checkpoint() }
    #expect(throws: ExtentFSError.self) { try store.close() }
    let lines = log.lines.filter { $0.level == .error }
    #expect(lines.count == 1, "\(lines)")
    #expect(lines.first?.facts["step"] == "sync" && lines.first?.facts["error"]?.isEmpty == false, "\(lines)")
  }

  @Test func `a thread in the background logs a failure as soon as there is one`() throws {
    let log = RecordingLog()
    let store = try Fixture(log)
    try store.engine.startCheckpoints()
    store.device.inject(DeviceFault(.sync, call: store.device.counts.syncs, errno: EIO, lasts: true))
    try store.write(at: 0)
    #expect(throws: ExtentFSError.self) { try store.volume.flush() }
    while !log.lines.contains(where: { $0.level == .error }) { usleep(1000) }
    try? store.close()
  }

  @Test func `an engine that only reads logs damage as soon as it is met`() throws {
    let store = try Fixture()
    try store.write(at: 0)
    try store.close()
    let log = RecordingLog()
    var options = EngineOptions()
    options.logger = log.logger
    let engine = try Engine.open(store.device, options, readOnly: true).engine
    try engine.startLog()
    engine.damage.note("a part", ExtentFSError(.damaged, "its checksum is wrong"), "nobody reads it")
    while !log.lines.contains(where: { $0.level == .warning && $0.facts["part"] == "a part" }) { usleep(1000) }
    try engine.close()
  }

  @Test func `a slow checkpoint is a line with its duration and counts, and others are none`() throws {
    let slow = try Fixture(slow: .zero)
    try slow.write(at: 0)
    try slow.engine.checkpoint()
    slow.engine.log.send()
    let line = try #require(slow.log.lines.last { $0.text.contains("slow") })
    #expect(line.level == .notice && line.facts.keys.sorted() == ["freedBlocks", "milliseconds", "nodes", "volumes"])
    #expect(line.facts["volumes"] == "1" && Int(line.facts["nodes"] ?? "") ?? 0 > 0, "\(line)")
    try slow.close()
    let fast = try Fixture()
    try fast.write(at: 0)
    try fast.close()
    #expect(!fast.log.lines.contains { $0.text.contains("slow") })
  }

  @Test func `the first discard that the device refuses is a notice, and others are details`() throws {
    let store = try Fixture()
    store.device.inject(DeviceFault(.discard, call: 0, errno: EOPNOTSUPP, lasts: true))
    for _ in 0..<3 {
      try store.write(at: 0, byteCount: 256 << 10)
      try store.volume.discard(in: 0..<256 << 10)
      try store.engine.checkpoint()
      try store.engine.trim(leaving: 0)
    }
    let lines = store.log.lines.filter { $0.text.contains("does not take free space back") }
    try #require(lines.count > 1, "\(lines)")
    #expect(lines.map(\.level) == [.notice] + [Logger.Level](repeating: .debug, count: lines.count - 1))
    #expect(lines.allSatisfy { $0.facts.keys.sorted() == ["blocks", "error", "firstBlock"] })
    try store.close()
  }

  @Test func `all keys of metadata are in docs/log.md`() throws {
    let root = URL(fileURLWithPath: #filePath).pathComponents.dropLast(4).joined(separator: "/").dropFirst()
    let text = try String(contentsOfFile: "\(root)/docs/log.md", encoding: .utf8)
    for key in EngineLog.Key.allCases { #expect(text.contains("| `\(key.rawValue)` |"), "\(key)") }
  }
}
