import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// A superblock slot with wrong bytes: what was newest is found, or nothing is written.
@Suite struct SuperblockDamageTests {
  /// A closed store whose last checkpoint made the volume `late`.
  private struct Store {
    let device: MemoryDevice
    let newest: Superblock
    let newestSlot: Int

    init(makesFeature: Bool = false) throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 4 << 20)
      var format = FormatOptions()
      format.journalByteCount = 65536
      try Engine.format(device, format)
      let engine = try Engine.open(device, EngineOptions()).engine
      engine.closeVolume(try engine.createVolume(named: "early", byteCount: 65536, createdSeconds: 1))
      if makesFeature {
        var change = StoreAttributes()
        change.limitByteCount = 3 << 20
        try engine.setAttributes(change)
      } else {
        engine.closeVolume(try engine.createVolume(named: "late", byteCount: 65536, createdSeconds: 2))
      }
      (newest, newestSlot) = try device.newestSuperblock()
    }

    /// The bytes of a slot.
    func bytes(slot: Int) throws -> [UInt8] {
      var bytes = [UInt8](repeating: 0, count: Superblock.encodedByteCount)
      try bytes.withUnsafeMutableBytes {
        try device.read(into: $0, at: StoreGeometry.superblockOffset(ofSlot: slot))
      }
      return bytes
    }

    func set(_ bytes: [UInt8], slot: Int) throws {
      try bytes.withUnsafeBytes { try device.write($0, at: StoreGeometry.superblockOffset(ofSlot: slot)) }
    }

    func names() throws -> [String] {
      let engine = try Engine.open(device, EngineOptions(), readOnly: true).engine
      return try engine.volumeRecords().map(\.record.name)
    }
  }

  @Test(arguments: [false, true]) func `any one byte of the newest that is wrong is made right`(isFeature: Bool) throws
  {
    let store = try Store(makesFeature: isFeature)
    let good = try store.bytes(slot: store.newestSlot)
    try withSeededGenerator { generator in
      // Of all that may differ between two superblocks, of what never does, and some that once were not found.
      let checked =
        [0, 12, 15, 16, 64, 4088] + (0..<40).map { _ in generator.number(below: 312) }
        + (0..<10).map { _ in 4024 + generator.number(below: 72) }
        + (0..<10).map { _ in generator.number(below: good.count) }
      for index in checked {
        var bad = good
        bad[index] ^= UInt8(1 + generator.number(below: 255))
        try store.set(bad, slot: store.newestSlot)
        let found = try store.device.findSuperblock()
        try LacunaTestSupport.check(
          found.superblock == store.newest && found.slot == store.newestSlot && found.broken?.meaning == .mended,
          "byte \(index): \(found.broken.map { "\($0)" } ?? "nothing found")")
      }
    }
  }

  /// One bit turns the number of the newest into that of the other one, so that it looks as if a power cut had torn it.
  @Test func `a generation that became the other one's is made right`() throws {
    let store = try Store()
    let good = try store.bytes(slot: store.newestSlot)
    for offset in [64, 4088] {
      for other in [store.newest.generation - 1, store.newest.generation - 2] {
        var bad = good
        bad[offset] = UInt8(truncatingIfNeeded: other)
        try store.set(bad, slot: store.newestSlot)
        let found = try store.device.findSuperblock()
        #expect(found.superblock == store.newest && found.broken?.meaning == .mended, "\(offset): \(other)")
      }
    }
  }

  @Test func `a store with such a byte opens, says so, and has a whole superblock then`() throws {
    let store = try Store()
    var bad = try store.bytes(slot: store.newestSlot)
    bad[200] ^= 1
    try store.set(bad, slot: store.newestSlot)
    let findings = try StoreCheck.findings(on: store.device)
    #expect(
      findings.count == 1
        && findings.allSatisfy { $0.kind == .superblock && $0.path.contains("superblock slot \(store.newestSlot)") },
      "\(findings)")
    let (engine, warnings) = try Engine.open(store.device, EngineOptions())
    #expect(warnings.count == 1 && engine.damage.all.count == 1)
    #expect(try engine.volumeRecords().map(\.record.name) == ["early", "late"])
    #expect(try StoreCheck.findings(on: store.device) == [])
  }

  @Test func `a newest one with many wrong bytes is given up with a warning where the other one is whole`()
    throws
  {
    for wrong in [152..<168, 60..<68, 4080..<4096, 0..<4096, 0..<16] {
      let store = try Store()
      var bad = try store.bytes(slot: store.newestSlot)
      for index in wrong { bad[index] = 0xA5 &+ UInt8(truncatingIfNeeded: index) }
      // What never differs does not matter.
      bad[280] ^= 1
      try store.set(bad, slot: store.newestSlot)
      #expect(try store.names() == ["early"])
      let findings = try StoreCheck.findings(on: store.device)
      #expect(
        findings.count == 1
          && findings.allSatisfy { $0.kind == .superblock && $0.text.contains("may have been the newest") },
        "\(findings)")
      let (engine, warnings) = try Engine.open(store.device, EngineOptions())
      #expect(warnings.count == 1 && warnings.allSatisfy { $0.contains("may have been the newest") }, "\(warnings)")
      #expect(engine.damage.all.count == 1)
      try engine.close()
      #expect(try StoreCheck.findings(on: store.device) == [])
    }
  }

  @Test func `nothing is written where the other one leads to what came after`() throws {
    let store = try Store()
    let bytes = try store.bytes(slot: 1 - store.newestSlot)
    let older = try Superblock(decoding: bytes.span.bytes)
    var bad = try store.bytes(slot: store.newestSlot)
    for index in 100..<200 { bad[index] = ~bad[index] }
    try store.set(bad, slot: store.newestSlot)
    // As if the newest had freed the block, and it had been written since.
    try [UInt8](repeating: 7, count: 4096).withUnsafeBytes {
      try store.device.write($0, at: older.names.pointer.block * 4096)
    }
    let before = try snapshot(store.device)
    let error = #expect(throws: ExtentFSError.self) { try Engine.open(store.device, EngineOptions()) }
    #expect(error?.code == .olderSuperblock)
    #expect(try snapshot(store.device) == before)
    var options = EngineOptions()
    options.acceptsOlderSuperblock = true
    let (_, warnings) = try Engine.open(store.device, options)
    #expect(warnings.count == 1)
  }

  @Test func `an older one with wrong bytes costs nothing but a warning`() throws {
    for wrong in [152..<168, 152..<153, 4032..<4040] {
      let store = try Store()
      var bad = try store.bytes(slot: 1 - store.newestSlot)
      for index in wrong { bad[index] = ~bad[index] }
      try store.set(bad, slot: 1 - store.newestSlot)
      #expect(try StoreCheck.findings(on: store.device).count == 1)
      let (engine, warnings) = try Engine.open(store.device, EngineOptions())
      #expect(warnings.count == 1 && warnings.allSatisfy { $0.contains("nothing is missing") }, "\(warnings)")
      #expect(try engine.volumeRecords().map(\.record.name) == ["early", "late"])
      try engine.close()
      #expect(try StoreCheck.findings(on: store.device) == [])
    }
  }

  /// Each way to tear what goes over the older one between sectors of 512 bytes.
  @Test func `one that a power cut tore is no damage`() throws {
    let store = try Store()
    let old = try store.bytes(slot: 1 - store.newestSlot)
    var next = store.newest
    next.generation += 1
    next.nextInode += 3
    next.transientCount = 1
    var new = [UInt8](repeating: 0, count: Superblock.encodedByteCount)
    new.withUnsafeMutableBytes { buffer in
      var span = buffer.mutableBytes
      next.encode(into: &span)
    }
    var tornCount = 0
    for mask in 0..<256 {
      var bytes = old
      for sector in 0..<8 where mask >> sector & 1 == 1 {
        bytes.replaceSubrange(sector * 512..<(sector + 1) * 512, with: new[sector * 512..<(sector + 1) * 512])
      }
      try store.set(bytes, slot: 1 - store.newestSlot)
      let found = try store.device.findSuperblock()
      if found.broken != nil {
        tornCount += 1
        try LacunaTestSupport.check(
          found.broken?.meaning == .torn && found.superblock == store.newest && found.broken?.part == nil,
          "\(mask): \(found)")
      }
    }
    #expect(tornCount == 128)
  }

  private func snapshot(_ device: MemoryDevice) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(device.byteCount))
    try bytes.withUnsafeMutableBytes { try device.read(into: $0, at: 0) }
    return bytes
  }
}
