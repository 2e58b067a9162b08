import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Space that was freed shortly before a process died goes back to the host after the next opening.
@Suite struct `Space that a dead process had freed` {
  private static let byteCount: UInt64 = 20 << 20

  private static var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = 64 << 20
    return options
  }

  private func makeDevice() throws -> CrashDevice {
    let device = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 64 << 20, records: false)
    var format = FormatOptions()
    format.blockByteCount = 4096
    format.journalByteCount = 65536
    try Engine.format(device, format)
    return device
  }

  private func allocated(_ device: some BlockDevice) throws -> UInt64 {
    try device.allocatedRuns(in: 0..<device.byteCount).reduce(0) { $0 + $1.length }
  }

  /// A process writes two volumes and a snapshot, frees most of it, and dies: nothing of it has gone back to the host.
  private func useAndDie<Device: BlockDevice>(_ device: Device, deletes: Bool = false) throws {
    let engine = try Engine.open(device, Self.options).engine
    let kept = try engine.createVolume(named: "kept", byteCount: 1 << 20, createdSeconds: 0)
    let big = try engine.createVolume(named: "big", byteCount: Self.byteCount, createdSeconds: 0)
    for (volume, byte) in [(big, 1), (kept, 2)] as [(DiskVolume, UInt8)] {
      let bytes = [UInt8](repeating: byte, count: Int(volume.byteCount))
      try bytes.withUnsafeBytes { try volume.write($0, at: 0) }
    }
    try engine.flush()
    if deletes {
      try engine.snapshot([("big", "big@a")], createdSeconds: 0)
      engine.closeVolume(big)
      try engine.delete(["big", "big@a"], force: true)
    } else {
      try engine.checkpoint()
      try big.discard(in: 0..<big.byteCount)
    }
    // What is in the journal alone must stay.
    try [UInt8](repeating: 3, count: 4096).withUnsafeBytes { try kept.write($0, at: 8192) }
  }

  private func checkKept(_ engine: Engine) throws {
    let volume = try #require(try engine.openVolume(named: "kept"))
    defer { engine.closeVolume(volume) }
    var bytes = [UInt8](repeating: 0, count: 1 << 20)
    try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    var expected = [UInt8](repeating: 2, count: 1 << 20)
    expected.replaceSubrange(8192..<12288, with: [UInt8](repeating: 3, count: 4096))
    try check(bytes == expected, "'kept' has changed")
  }

  /// What is used, and pieces of 64 KiB at the edges.
  private func mostAllocated(_ engine: Engine) -> UInt64 {
    engine.usage.usedByteCount + 512 << 10
  }

  @Test func `is found when the store is quiet`() throws {
    let device = try makeDevice()
    try useAndDie(device)
    #expect(try allocated(device) > Self.byteCount)
    let engine = try Engine.open(device, Self.options).engine
    // What recovery's checkpoint freed has marks.
    try engine.trim(leaving: 0)
    while try engine.reclaimSome() {}
    #expect(try allocated(device) <= mostAllocated(engine))
    try checkKept(engine)
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
    // Those who opened it once before the process died never marked what they freed.
    try useAgainAndDie(device)
    #expect(try allocated(device) > Self.byteCount)
    let again = try Engine.open(device, Self.options).engine
    try again.close()
    let last = try Engine.open(device, Self.options).engine
    try last.trim(leaving: 0)
    #expect(try allocated(device) > Self.byteCount)
    while try last.reclaimSome() {}
    #expect(try allocated(device) <= mostAllocated(last))
    try checkKept(last)
    try last.close()
  }

  private func useAgainAndDie(_ device: CrashDevice) throws {
    let engine = try Engine.open(device, Self.options).engine
    let big = try #require(try engine.openVolume(named: "big"))
    let bytes = [UInt8](repeating: 9, count: Int(big.byteCount))
    try bytes.withUnsafeBytes { try big.write($0, at: 0) }
    try engine.checkpoint()
    try big.discard(in: 0..<big.byteCount)
    try engine.checkpoint()
  }

  @Test(arguments: [false, true])
  func `is given back at once where that is asked for, and all of it is told`(_ deletes: Bool) throws {
    let device = try makeDevice()
    try useAndDie(device, deletes: deletes)
    let before = try allocated(device)
    #expect(before > Self.byteCount)
    let engine = try Engine.open(device, Self.options).engine
    let opened = try allocated(device)
    var reports: [UInt64] = []
    let found = try engine.reclaimAll { done, total throws(ExtentFSError) in
      #expect(done <= total)
      reports.append(done)
    }
    #expect(found.isKnown && found.byteCount > Self.byteCount - 1 << 20)
    #expect(try allocated(device) <= mostAllocated(engine))
    // The checkpoint may have written a few blocks.
    #expect(try found.byteCount >= opened - allocated(device) && found.byteCount < opened - allocated(device) + 1 << 18)
    #expect(reports.last == device.byteCount / 4096)
    #expect(try engine.reclaimAll { _, _ in }.byteCount < 1 << 17)
    try checkKept(engine)
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  @Test func `goes back as far as it is free on a device that cannot tell what it holds`() throws {
    let base = try makeDevice()
    try useAndDie(base)
    let device = SilentDevice(base)
    let engine = try Engine.open(device, Self.options).engine
    // Nothing is done unasked.
    #expect(throws: ExtentFSError.self) { _ = try engine.reclaimSome() }
    let found = try engine.reclaimAll { _, _ in }
    #expect(!found.isKnown)
    let free = engine.space.freeBlockCount << 12
    #expect(found.byteCount <= free && found.byteCount > free - 1 << 20)
    #expect(try allocated(base) <= mostAllocated(engine))
    try checkKept(engine)
    try engine.close()
    #expect(try StoreCheck.findings(on: base) == [])
  }

  @Test(arguments: [EOPNOTSUPP, EIO])
  func `stays where the device does not take it back, and can be used still`(_ errno: Int32) throws {
    let base = try makeDevice()
    try useAndDie(base)
    let device = FaultyDevice(base)
    let engine = try Engine.open(device, Self.options).engine
    try engine.checkpoint()
    let free = engine.space.freeBlockCount
    device.inject(DeviceFault(.discard, call: 0, errno: errno, lasts: true))
    let error = #expect(throws: ExtentFSError.self) { _ = try engine.reclaimAll { _, _ in } }
    if case .device(let cause)? = error?.code { #expect(cause.errno == errno) } else { Issue.record("\(error as Any)") }
    #expect(engine.space.freeBlockCount == free)
    while try engine.reclaimSome() {}
    #expect(engine.space.freeBlockCount == free)
    try checkKept(engine)
    try engine.close()
  }

  @Test func `is left alone when whoever asked for it hangs up, and the store goes on`() throws {
    let device = try makeDevice()
    try useAndDie(device, deletes: true)
    let engine = try Engine.open(device, Self.options).engine
    let error = #expect(throws: ExtentFSError.self) {
      _ = try engine.reclaimAll { _, _ throws(ExtentFSError) in throw ExtentFSError(.busy, "enough") }
    }
    #expect(error?.code == .busy)
    try checkKept(engine)
    while try engine.dropDeleted() {}
    while try engine.reclaimSome() {}
    try engine.trim(leaving: 0)
    #expect(try allocated(device) <= mostAllocated(engine))
    try engine.close()
  }
}

/// A device that does not say what it holds, as a block device does not.
private struct SilentDevice: BlockDevice {
  let base: CrashDevice
  init(_ base: CrashDevice) { self.base = base }
  var byteCount: UInt64 { base.byteCount }
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.read(into: buffer, at: offset)
  }
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.write(buffer, at: offset)
  }
  func sync() throws(DeviceError) { try base.sync() }
  func discard(_ range: Range<UInt64>) throws(DeviceError) { try base.discard(range) }
  func grow(to byteCount: UInt64) throws(DeviceError) { try base.grow(to: byteCount) }
}
