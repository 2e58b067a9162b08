import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// A store on a small memory device, with one volume, and the flat array that the volume must equal.
struct ModelStore {
  let device: MemoryDevice
  private(set) var engine: Engine
  private(set) var volume: DiskVolume
  private(set) var disk: ReferenceDisk

  init(byteCount: Int, journalByteCount: UInt64 = 65536) throws {
    device = try MemoryDevice(byteCount: 0, maximumByteCount: 256 << 20)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = journalByteCount
    try Engine.format(device, format)
    engine = try Engine.open(device, EngineOptions()).engine
    volume = try engine.createVolume(named: "disk", byteCount: UInt64(byteCount), createdSeconds: 0)
    disk = ReferenceDisk(byteCount: byteCount)
  }

  mutating func step(_ generator: inout SeededGenerator) throws {
    let size = disk.byteCount
    let offset = Int.random(in: 0..<size, using: &generator)
    let isAligned = Bool.random(using: &generator)
    var start = offset
    var end = min(
      size, offset + Int.random(in: 1...(1 << Int.random(in: 0...15, using: &generator)), using: &generator))
    if isAligned {
      start &= ~1023
      end = min(size, (end + 1023) & ~1023)
    }
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<45:
      let isZero = Int.random(in: 0..<8, using: &generator) == 0
      let bytes = (start..<end).map { _ in isZero ? 0 : UInt8.random(in: 0...255, using: &generator) }
      try bytes.withUnsafeBytes {
        try volume.write($0, at: UInt64(start))
        disk.write($0, at: start)
      }
    case 45..<55:
      try volume.zero(in: UInt64(start)..<UInt64(end), keepsSpace: Bool.random(using: &generator))
      disk.zero(start..<end)
    case 55..<62:
      try volume.discard(in: UInt64(start)..<UInt64(end))
      let first = (start + 1023) / 1024 * 1024
      let last = end == size ? size : end / 1024 * 1024
      if first < last { disk.zero(first..<last) }
    case 62..<90: try checkRange(start..<end)
    case 90..<95: try volume.flush()
    case 95..<97: try engine.checkpoint()
    case 97: try reopen(cleanly: true)
    default: try reopen(cleanly: false)
    }
  }

  /// Opens the store anew, as after a clean end or after the death of the process.
  mutating func reopen(cleanly: Bool) throws {
    if cleanly { try engine.close() }
    engine = try Engine.open(device, EngineOptions()).engine
    volume = try #require(try engine.openVolume(named: "disk"))
    try check()
    let findings = try StoreCheck.findings(on: device)
    #expect(findings == [])
    if !findings.isEmpty { throw CheckFailure("the store is not sound") }
  }

  func checkRange(_ range: Range<Int>) throws {
    var found = [UInt8](repeating: 0xAA, count: range.count)
    try found.withUnsafeMutableBytes { try volume.read(into: $0, at: UInt64(range.lowerBound)) }
    try found.withUnsafeBytes { try disk.check($0, at: range.lowerBound) }
  }

  func check() throws {
    try checkRange(0..<disk.byteCount)
    var next: UInt64 = 0
    try volume.forEachExtent(in: 0..<UInt64(disk.byteCount)) { bytes, kind in
      #expect(bytes.lowerBound == next)
      next = bytes.upperBound
      if kind != .data { #expect(disk.isZero(Int(bytes.lowerBound)..<Int(bytes.upperBound))) }
      return true
    }
    #expect(next == UInt64(disk.byteCount))
  }
}

@Suite(.slow) struct EngineModelTests {
  @Test func `a volume is what was written to it, across checkpoints, ends and deaths of the process`() throws {
    try withSeededGenerator { generator in
      var store = try ModelStore(byteCount: 700_321)
      for _ in 0..<4000 { try store.step(&generator) }
      try store.reopen(cleanly: true)
    }
  }
}
