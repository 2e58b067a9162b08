import Bytes
import Checksums
import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// How often a store calls its device, which is what counts where each call takes long.
@Suite struct DeviceCallTests {
  private typealias Device = FaultyDevice<MemoryDevice>

  /// An open store with a volume of 1 GiB.
  private func open(blockByteCount: Int, journalByteCount: UInt64) throws -> (Device, Engine, DiskVolume) {
    let device = Device(try MemoryDevice(byteCount: 0, maximumByteCount: 4 << 30))
    var format = FormatOptions()
    format.blockByteCount = blockByteCount
    format.journalByteCount = journalByteCount
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    return (device, engine, try engine.createVolume(named: "v", byteCount: 1 << 30, createdSeconds: 0))
  }

  @Test func `a checkpoint of 1,000 nodes takes at most 20 calls`() throws {
    let (device, engine, volume) = try open(blockByteCount: 1024, journalByteCount: 8 << 20)
    let content = pattern(1024, seed: 1)
    // The first one adds all the nodes, the second one writes all of them anew.
    for round in 0..<2 as Range<UInt64> {
      for block in stride(from: UInt64(0), to: 84_000, by: round == 0 ? 2 : 32) {
        try content.withUnsafeBytes { try volume.write($0, at: block * 1024) }
      }
      let before = device.counts
      try engine.checkpoint()
      let after = device.counts
      let written = after.bytesWritten - before.bytesWritten
      #expect(written >= 1000 * 1024, "\(written) bytes are fewer than those of 1,000 nodes")
      #expect(after.total - before.total <= 20, "\(before) \(after)")
      print("a checkpoint of \(written) bytes: \(after.total - before.total) calls")
      // Nodes; bitmaps and checksum blocks; the superblock; and two syncs at least.
      #expect(after.writes - before.writes <= 4, "\(before) \(after)")
    }
    try engine.close()
  }

  @Test func `recovery of a full journal of the usual length takes at most 2,000 calls`() throws {
    let (device, engine, volume) = try open(blockByteCount: 4096, journalByteCount: 16 << 20)
    // As after as many writes of a block of zeroes, each to a place of its own.
    var sum = [UInt8](repeating: 0, count: 4096).withUnsafeBytes { CRC32C.checksum($0) }
    var count = 0
    var run = PhysicalRun(block: 0, count: 0)
    while true {
      if run.count == 0 { run = try engine.space.allocate(upTo: 1024, purpose: .data) }
      let isAppended = try withUnsafePointer(to: &sum) { sum in
        try engine.journal.appendMap(
          inode: volume.inode, logical: UInt64(count) * 7919 % 262_144, physical: run.block,
          checksums: UnsafeBufferPointer(start: sum, count: 1)) != nil
      }
      guard isAppended else { break }
      run = PhysicalRun(block: run.block + 1, count: run.count - 1)
      count += 1
    }
    #expect(count > 100_000)

    let before = device.counts
    let (again, warnings) = try Engine.open(device, EngineOptions())
    let after = device.counts
    #expect(warnings.isEmpty, "\(warnings)")
    #expect(after.bytesRead - before.bytesRead > UInt64(count) * 4096, "the data was not read")
    #expect(after.total - before.total <= 2000, "\(before) \(after)")
    print("recovery of \(count) records: \(after.reads - before.reads) reads of \(after.total - before.total) calls")
    let merged = try #require(try again.openVolume(named: "v"))
    var mapped: UInt64 = 0
    try merged.forEachMapping(in: 0..<1 << 30) { bytes, _, offset in
      if offset != nil { mapped += bytes.length }
      return true
    }
    #expect(mapped == UInt64(count) * 4096)
    try again.close()
  }

  @Test func `a read of many blocks is one call, and one look for checksums in each of their pages`() throws {
    let (device, engine, volume) = try open(blockByteCount: 4096, journalByteCount: 1 << 20)
    // As many as are looked for at once, and a few more.
    let content = pattern(300 * 4096, seed: 3)
    try content.withUnsafeBytes { try volume.write($0, at: 0) }
    try engine.checkpoint()
    let before = (device.counts, engine.statistics.checksums)
    var found = [UInt8](repeating: 0, count: content.count)
    try found.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    #expect(found == content)
    let after = (device.counts, engine.statistics.checksums)
    #expect(after.0.total - before.0.total == 1)
    let looks = after.1.hitCount + after.1.missCount - before.1.hitCount - before.1.missCount
    #expect((1...4).contains(looks), "\(looks) looks")
    // What is wrong is still found, in the last block too.
    for block in [0, 255, 256, 299] as [UInt64] {
      var place: UInt64?
      try volume.forEachMapping(in: block << 12..<(block + 1) << 12) { _, _, offset in
        place = offset
        return true
      }
      let offset = try #require(place)
      device.corruptReads(of: offset..<offset + 1, .flippedBit(0))
      #expect(throws: ExtentFSError.self) { try found.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) } }
      device.clearFaults()
    }
    try engine.close()
  }
}
