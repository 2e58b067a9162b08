import Atomics
import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// The check of a store that is in use.
@Suite struct OnlineCheckTests {
  private struct Fixture: Sendable {
    let device: MemoryDevice
    let engine: Engine
    let volume: DiskVolume

    init() throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
      var format = FormatOptions()
      format.blockByteCount = 1024
      format.journalByteCount = 65536
      try Engine.format(device, format)
      var options = EngineOptions()
      // Little more than the volume needs: blocks are used again soon.
      options.limitByteCount = 2 << 20
      let engine = try Engine.open(device, options).engine
      self.engine = engine
      volume = try engine.createVolume(named: "disk", byteCount: 400 << 10, createdSeconds: 0)
      try write(0..<400, 1)
      // No two blocks of the second half are one extent.
      for block in stride(from: 200, to: 400, by: 2) { try write(block..<block + 1, 2) }
      try engine.checkpoint()
    }

    func write(_ blocks: Range<Int>, _ byte: Int) throws {
      let bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: byte), count: blocks.count * 1024)
      try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(blocks.lowerBound) * 1024) }
    }

    /// Enough that the bitmaps, the checksums and most nodes of any point before are written over.
    func overtake(_ round: Int) throws {
      for step in 0..<3 {
        for block in stride(from: step, to: 400, by: 7) { try write(block..<block + 1, round + step) }
        try engine.checkpoint()
      }
    }
  }

  @Test func `a store that is written to all the time is sound at each point`() throws {
    let fixture = try Fixture()
    let isOver = ManagedAtomic(false)
    let generations = ManagedAtomic<UInt64>(0)
    try inThreads([
      {
        defer { isOver.store(true, ordering: .relaxed) }
        for _ in 0..<40 {
          let report = try fixture.engine.check()
          try check(report.findings == [], "\(report.findings)")
          try check(report.accounts.map(\.mapped) == [400], "\(report.accounts)")
          generations.store(report.generation, ordering: .relaxed)
        }
      },
      {
        var round = 2
        while !isOver.load(ordering: .relaxed) {
          try fixture.overtake(round)
          round += 1
        }
      },
    ])
    #expect(generations.load(ordering: .relaxed) > 3)
    try fixture.engine.close()
    #expect(try StoreCheck.findings(on: fixture.device) == [])
  }

  @Test(arguments: [1, 2, 3]) func `a check that comes too late each time reads while no checkpoint runs`(
    _ every: Int
  ) throws {
    let fixture = try Fixture()
    var takeCount = 0
    var mayOvertake = true
    var overtakeCount = 0
    var points = fixture.engine.points {
      takeCount += 1
      guard mayOvertake, takeCount % every == 0 else { return }
      overtakeCount += 1
      #expect(throws: Never.self) { try fixture.overtake(takeCount) }
    }
    let withoutCheckpoints = points.withoutCheckpoints
    var heldOffCount = 0
    points.withoutCheckpoints = { body throws(ExtentFSError) in
      heldOffCount += 1
      mayOvertake = false
      defer { mayOvertake = true }
      try withoutCheckpoints(body)
    }
    let report = try StoreCheck(fixture.device, points, readsData: true, progress: { _, _ in }).run()
    #expect(report.findings == [])
    #expect(report.verifiedBlockCount + report.skippedBlockCount == 400)
    #expect(overtakeCount > 0)
    if every == 1 { #expect(heldOffCount > 0) }
    try fixture.engine.close()
  }

  @Test func `what was given up since is skipped, and what is damaged is named where it is now`() throws {
    let fixture = try Fixture()
    // The first take is for the block size, the second one for the structure; data is read at later ones.
    var takeCount = 0
    let points = fixture.engine.points {
      takeCount += 1
      guard takeCount == 2 else { return }
      #expect(throws: Never.self) {
        try fixture.volume.discard(in: 0..<100 << 10)
        try fixture.write(200..<210, 77)
        try fixture.engine.checkpoint()
      }
    }
    // Block 300 of the volume, on the device.
    let view = try fixture.volume.state.withView { $0 }
    guard let block = try view.location(of: 300, fixture.engine.nodes).physicalBlock else {
      Issue.record("the block is not mapped")
      return
    }
    try [UInt8](repeating: 9, count: 4).withUnsafeBytes { try fixture.device.write($0, at: block * 1024 + 7) }
    let report = try StoreCheck(fixture.device, points, readsData: true, progress: { _, _ in }).run()
    #expect(report.findings.count == 1)
    #expect(report.findings.first?.path.contains("volume 'disk' (inode 1) > block ") == true, "\(report.findings)")
    #expect(report.findings.first?.description.contains("logical block 300: block \(block) has the checksum") == true)
    #expect(report.skippedBlockCount == 110)
    try fixture.engine.close()
  }

  @Test func `what a point's trees reach is not written over while the point is held`() throws {
    let fixture = try Fixture()
    let points = fixture.engine.points()
    let point = points.take()
    // As often as there is room for, with what the point has kept from being used again.
    var overtakenCount = 0
    do {
      while overtakenCount < 30 {
        try fixture.overtake(overtakenCount)
        overtakenCount += 1
      }
    } catch let error as ExtentFSError {
      #expect(error.code == .outOfSpace)
    }
    #expect(overtakenCount > 2 && overtakenCount < 30)
    // Bitmaps and checksums are not what they were; the trees are.
    let findings = try StoreCheck.run(on: fixture.device, at: point, readsData: false).findings
    #expect(findings.count == 1 && findings[0].description.hasPrefix("group 0: block 19"), "\(findings)")
    _ = points.take()
    // Now it can go on.
    try fixture.engine.checkpoint()
    try fixture.overtake(99)
    #expect(try fixture.engine.check().findings == [])
    try fixture.engine.close()
  }

  @Test func `a bitmap that is damaged is damage, in use as well`() throws {
    let fixture = try Fixture()
    let group = fixture.engine.geometry.headBlockCount
    for slot in 0..<2 as Range<UInt64> {
      try [UInt8](repeating: 0xFF, count: 9).withUnsafeBytes {
        try fixture.device.write($0, at: (group + slot) * 1024 + 500)
      }
    }
    let findings = try fixture.engine.check().findings
    #expect(
      findings.contains { $0.path == "group 0" && $0.kind == .metadata && $0.text.contains("its parent says") },
      "\(findings)")
  }
}
