import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// A store on a device that can lose its power, with one volume.
struct CrashStore: Sendable {
  static let blockByteCount = 1024
  static let blockCount = 400
  static let limitByteCount: UInt64 = 3 << 20

  let device: CrashDevice
  var engine: Engine<CrashDevice>
  var volume: DiskVolume<CrashDevice>

  static var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = limitByteCount
    return options
  }

  static func format(_ device: CrashDevice) throws {
    var format = FormatOptions()
    format.blockByteCount = blockByteCount
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, options).engine
    _ = try engine.createVolume(named: "disk", byteCount: UInt64(blockCount * blockByteCount), createdSeconds: 0)
    try engine.close()
  }

  init(opening device: CrashDevice) throws {
    self.device = device
    engine = try Engine.open(device, Self.options).engine
    volume = try #require(try engine.volume(named: "disk"))
  }

  func close() { try? engine.close() }

  mutating func step(_ ledger: DiskLedger, _ generator: inout SeededGenerator) throws {
    let size = UInt64(Self.blockByteCount)
    let first = UInt64.random(in: 0..<UInt64(Self.blockCount), using: &generator)
    let count = UInt64.random(in: 1...(Bool.random(using: &generator) ? 2 : 40), using: &generator)
    let blocks = first..<min(first + count, UInt64(Self.blockCount))
    let bytes = blocks.lowerBound * size..<blocks.upperBound * size
    switch Int.random(in: 0..<20, using: &generator) {
    case 0..<11:
      let change = ledger.willWrite(blocks)
      try ledger.bytes(of: change).withUnsafeBytes { try volume.write($0, at: bytes.lowerBound) }
      ledger.didFinish(change)
    case 11..<13:
      let change = ledger.willZero(blocks)
      try volume.zero(in: bytes, keepsSpace: Bool.random(using: &generator))
      ledger.didFinish(change)
    case 13:
      let change = ledger.willZero(blocks)
      try volume.discard(in: bytes)
      ledger.didFinish(change)
    case 14..<18:
      let flush = ledger.willFlush()
      try volume.flush()
      ledger.didFinish(flush)
    case 18:
      try engine.checkpoint()
    default:
      // The process dies and the store is opened anew; the device keeps what the kernel had.
      self = try CrashStore(opening: device)
    }
  }

  /// The volume is what the ledger allows, the store is sound, and it goes on working.
  func check(_ expectation: DiskExpectation) throws {
    try expectation.check { buffer, offset in try volume.read(into: buffer, at: offset) }
    let findings = try StoreCheck.findings(on: device)
    if let first = findings.first { throw CheckFailure("the store is not sound: \(first)") }
    let bytes = [UInt8](repeating: 0x5A, count: 3 * Self.blockByteCount)
    try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(7 * Self.blockByteCount)) }
    try volume.flush()
    try engine.checkpoint()
  }
}

extension CrashScenario<CrashStore, DiskLedger, DiskExpectation> {
  static func engine(stepCount: Int) -> CrashScenario {
    CrashScenario(
      name: "engine", byteCount: 0, maximumByteCount: CrashStore.limitByteCount, stepCount: stepCount,
      format: { try CrashStore.format($0) },
      open: { try CrashStore(opening: $0) },
      oracle: {
        DiskLedger(blockByteCount: CrashStore.blockByteCount, blockCount: UInt64(CrashStore.blockCount), clock: $0)
      },
      step: { store, ledger, _, generator in try store.step(ledger, &generator) },
      expectation: { ledger, point in ledger.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
  }
}

@Suite struct EngineCrashTests {
  @Test func `no power cut loses what was flushed or tears a block`() throws {
    var hunt = CrashHunt()
    hunt.mostPoints = 400
    let report = try hunt.run(.engine(stepCount: 150))
    print("engine crash hunt: \(report)")
  }

  @Test func `a device that lies about its syncs is caught`() {
    var hunt = CrashHunt()
    hunt.seed = 1
    hunt.mostPoints = 200
    hunt.syncsLie = true
    #expect(throws: CrashHuntFailure.self) { try hunt.run(.engine(stepCount: 150)) }
  }
}
