import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What is deleted, and what is known of it while its space comes back.
@Suite struct `What is deleted and holds space` {
  private static var options: EngineOptions {
    var options = EngineOptions()
    options.deletionStepNodeCount = 3
    return options
  }

  private func format(_ device: MemoryDevice) throws {
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
  }

  /// Makes the volume `name`, with a tree of several nodes.
  private func create(_ name: String, _ engine: Engine) throws {
    let volume = try engine.createVolume(named: name, byteCount: 400 << 10, createdSeconds: 0)
    for block in stride(from: 0, to: 400, by: 2) as StrideTo<UInt64> {
      try [UInt8](repeating: 1, count: 1024).withUnsafeBytes { try volume.write($0, at: block << 10) }
    }
    engine.closeVolume(volume)
  }

  @Test func `is told by name, gets less with each step, and costs no look at the device or its cached nodes`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 16 << 20)
    try format(device)
    let engine = try Engine.open(device, Self.options).engine
    try create("a", engine)
    try create("b", engine)
    try engine.snapshot([("b", "b@s")], createdSeconds: 0)
    try engine.delete(["a", "b"], withSnapshots: true, force: false)
    let backlog = try engine.deletionBacklog()
    #expect(
      backlog.map(\.name) == ["the deleted volume 'a'", "the deleted volume 'b'", "the deleted snapshot 'b@s'"])
    #expect(backlog.map(\.mappedBlockCount) == [200, 200, 200] && backlog.allSatisfy { $0.damage == nil })
    let before = engine.nodes.counts
    for _ in 0..<50 { _ = try engine.deletionBacklog() }
    #expect(engine.nodes.counts == before)
    var lefts: [UInt64] = []
    repeat {
      lefts.append(try engine.deletionBacklog().reduce(0) { $0 + $1.mappedBlockCount })
    } while try engine.dropDeleted()
    #expect(lefts.count > 4 && lefts == lefts.sorted(by: >) && lefts.last == 0, "\(lefts)")
    #expect(try engine.deletionBacklog().isEmpty)
    try engine.close()
  }

  @Test func `is found again by the next opening, and after what was deleted since`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 16 << 20)
    try format(device)
    var engine = try Engine.open(device, Self.options).engine
    for name in ["a", "b"] { try create(name, engine) }
    try engine.delete(["a"], force: false)
    try engine.close()
    engine = try Engine.open(device, Self.options).engine
    try engine.delete(["b"], force: false)
    #expect(try engine.deletionBacklog().map(\.name) == [nil, "the deleted volume 'b'"])
    while try engine.dropDeleted() {}
    #expect(try engine.deletionBacklog().isEmpty)
    try engine.close()
    #expect(try StoreCheck.findings(on: device) == [])
  }

  /// Deletes a volume and gives its space back as long as there is something to do, as who waits for that does: it must end.
  private func run(_ fault: DeviceFault?) throws -> (counts: DeviceCallCounts, backlog: Int, error: ExtentFSError?) {
    let base = try MemoryDevice(byteCount: 0, maximumByteCount: 16 << 20)
    try format(base)
    let device = FaultyDevice(base, faults: fault.map { [$0] } ?? [])
    let engine = try Engine.open(device, Self.options).engine
    try create("a", engine)
    try engine.delete(["a"], force: false)
    let counts = device.counts
    do throws(ExtentFSError) {
      while try engine.dropDeleted() {}
    } catch {
      // It says so each time, and never that nothing is left to do.
      for _ in 0..<3 { #expect(throws: ExtentFSError.self) { try engine.dropDeleted() } }
      return (counts, try engine.deletionBacklog().count, error)
    }
    return (counts, try engine.deletionBacklog().count, nil)
  }

  @Test(arguments: [DeviceError.Operation.write, .sync]) func `is no reason to wait for a store that has failed`(
    _ operation: DeviceError.Operation
  ) throws {
    let sound = try run(nil)
    #expect(sound.error == nil && sound.backlog == 0)
    for call in 0..<6 {
      let fault = DeviceFault(operation, call: sound.counts[operation] + call, errno: EIO, lasts: true)
      let failed = try run(fault)
      #expect(failed.error != nil && failed.backlog == 1, "\(fault): \(failed)")
    }
  }
}
