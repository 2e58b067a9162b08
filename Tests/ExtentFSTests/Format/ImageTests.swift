import Devices
import ExtentFS
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

/// What the images of version 1 hold: the same operations on arrays of bytes. It never changes; see docs/testing.md.
private struct ImagePlan {
  static let blockByteCount = 1024
  static let limit: UInt64 = 2 << 20
  static let volumes = [("disk", 1_400_321), ("vms/\u{FC}bung", 40_000), ("empty", 1 << 40)]

  private(set) var arrays: [[UInt8]]
  private(set) var store: FileStoreUnderTest?

  /// The plan; with a `store`, all is also done there.
  init(_ store: FileStoreUnderTest?) throws {
    self.store = store
    // The empty volume stands for itself: it is far too long for an array.
    arrays = Self.volumes.map { [UInt8](repeating: 0, count: $0.1 == 1 << 40 ? 0 : $0.1) }
    for (name, byteCount) in Self.volumes { try self.store?.addVolume(name, byteCount: byteCount) }
  }

  /// What the `round`th round writes into a block.
  private func byte(_ volume: Int, _ block: Int, _ round: Int) -> UInt8 {
    UInt8((volume * 89 + block * 7 + block / 37 * 3 + round * 31) % 251 + 1)
  }

  private mutating func write(_ volume: Int, _ range: Range<Int>, _ round: Int) throws {
    for block in range.lowerBound / 1024...(range.upperBound - 1) / 1024 {
      let part = range.clamped(to: block * 1024..<(block + 1) * 1024)
      arrays[volume].replaceSubrange(part, with: repeatElement(byte(volume, block, round), count: part.count))
    }
    try arrays[volume][range].withUnsafeBytes { try store?.volumes[volume].write($0, at: UInt64(range.lowerBound)) }
  }

  private mutating func zero(_ volume: Int, _ range: Range<Int>, keepsSpace: Bool) throws {
    arrays[volume].replaceSubrange(range, with: repeatElement(0, count: range.count))
    try store?.volumes[volume].zero(in: UInt64(range.lowerBound)..<UInt64(range.upperBound), keepsSpace: keepsSpace)
  }

  /// What is in both images: a tree of two levels, inline extents, reserved zeroes, holes, parts of blocks.
  mutating func runFirst() throws {
    for block in stride(from: 1, to: 1300, by: 2) { try write(0, block * 1024..<(block + 1) * 1024, 0) }
    try store?.engine.checkpoint()
    // Each second block once more, so that neighbours do not lie together.
    for block in stride(from: 0, to: 1200, by: 4) { try write(0, block * 1024..<(block + 1) * 1024, 1) }
    try write(0, 1_400_000..<1_400_321, 2)
    try zero(0, 100_000..<160_000, keepsSpace: true)
    try zero(0, 200_000..<210_000, keepsSpace: false)
    try write(1, 5000..<9001, 2)
    try zero(1, 20_480..<30_720, keepsSpace: true)
    try store?.engine.checkpoint()
  }

  /// What only the journal of the second image has: some of it before a flush, some behind the last one.
  mutating func runSecond() throws {
    try write(0, 3000..<12_345, 3)
    try write(1, 0..<4096, 3)
    try store?.volumes[0].flush()
    try zero(0, 50_000..<70_000, keepsSpace: false)
    try write(1, 19_000..<23_000, 4)
    try store?.volumes[1].flush()
    try zero(1, 0..<2048, keepsSpace: true)
    try write(0, 1_390_000..<1_400_321, 5)
  }
}

@Suite struct ImageTests {
  static let names = ["version-1-closed", "version-1-journal"]
  private static let images = testsDirectory.appendingPathComponent("Images")

  /// Writes new images where `LACUNA_NEW_IMAGES` says; see docs/testing.md.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["LACUNA_NEW_IMAGES"] != nil, "no new images are wanted"))
  func `new images are written`() throws {
    let directory = try #require(ProcessInfo.processInfo.environment["LACUNA_NEW_IMAGES"])
    for name in Self.names {
      let path = directory + "/" + name
      let store = try FileStoreUnderTest(making: path, blockByteCount: ImagePlan.blockByteCount, limit: ImagePlan.limit)
      var plan = try ImagePlan(store)
      try plan.runFirst()
      if name == Self.names[0] {
        try store.engine.close()
        #expect(try run(["gzip", "-n9", path]).status == 0)
      } else {
        try plan.runSecond()
        #expect(try run(["gzip", "-n9k", path]).status == 0)
        try store.engine.close()
        try FileManager.default.removeItem(atPath: path)
      }
    }
  }

  @Test(.slow, arguments: names)
  func `an image of version 1 opens, and each byte is as it was written`(_ name: String) throws {
    var plan = try ImagePlan(nil)
    try plan.runFirst()
    if name == Self.names[1] { try plan.runSecond() }
    try withTestDirectory { directory in
      let path = directory + "/" + name
      try FileManager.default.copyItem(
        atPath: Self.images.appendingPathComponent(name + ".gz").path, toPath: path + ".gz")
      #expect(try run(["gzip", "-d", path + ".gz"]).status == 0)
      if hasPython { try compareReader(path, plan, directory) }
      do {
        let device = try FileDevice(opening: FilePath(path), access: .readOnly)
        let engine = try Engine.open(device, EngineOptions(), readOnly: true).engine
        try compare(engine, plan)
        #expect(engine.uuid == FileStoreUnderTest.uuid)
      }
      // Reading only must have changed nothing, and so the same again, for writing.
      let copy = directory + "/copy"
      try FileManager.default.copyItem(atPath: path, toPath: copy)
      let device = try FileDevice(opening: FilePath(copy))
      let (engine, warnings) = try Engine.open(device, FileStoreUnderTest.options(limit: ImagePlan.limit))
      #expect(warnings == [])
      try compare(engine, plan)
      try engine.close()
      #expect(try StoreCheck.findings(on: device) == [])
    }
  }

  private func compare(_ engine: Engine, _ plan: ImagePlan) throws {
    #expect(try engine.volumeRecords().map(\.record.name) == ImagePlan.volumes.map(\.0))
    #expect(engine.defaultInode == 1)
    for (index, (name, byteCount)) in ImagePlan.volumes.enumerated() {
      let volume = try #require(try engine.openVolume(named: name))
      #expect(volume.byteCount == UInt64(byteCount))
      if plan.arrays[index].isEmpty {
        #expect(try volume.map() == ["0 \(byteCount) hole"])
      } else {
        #expect(try volume.contents() == Data(plan.arrays[index]))
      }
    }
  }

  private func compareReader(_ path: String, _ plan: ImagePlan, _ directory: String) throws {
    let check = try runReader(path, "check")
    #expect(check.status == 0, "\(check.output)")
    for (index, (name, _)) in ImagePlan.volumes.enumerated() where !plan.arrays[index].isEmpty {
      let file = directory + "/out"
      #expect(try runReader(path, "cat", name, file).status == 0)
      #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == Data(plan.arrays[index]))
    }
  }
}
