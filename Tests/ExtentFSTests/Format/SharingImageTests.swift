import Devices
import ExtentFS
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

/// What the images of version 1 with snapshots hold: the same operations on arrays of bytes. It never changes; see
/// docs/testing.md.
private struct SharingImagePlan {
  static let blockByteCount = 1024
  static let limit: UInt64 = 2 << 20

  private(set) var arrays: [String: [UInt8]] = [:]
  private let engine: Engine?

  /// The plan; with an `engine`, all is also done there.
  init(_ engine: Engine?) { self.engine = engine }

  /// What the `round`th round writes into a block.
  private func byte(_ block: Int, _ round: Int) -> UInt8 { UInt8((block * 7 + block / 37 * 3 + round * 31) % 251 + 1) }

  private mutating func create(_ name: String, byteCount: Int) throws {
    arrays[name] = [UInt8](repeating: 0, count: byteCount)
    if let engine {
      engine.closeVolume(
        try engine.createVolume(named: name, byteCount: UInt64(byteCount), createdSeconds: 1_000_000_001))
    }
  }

  private mutating func write(_ name: String, _ blocks: StrideTo<Int>, _ round: Int) throws {
    let volume = try engine?.openVolume(named: name)
    defer { if let volume { engine?.closeVolume(volume) } }
    for block in blocks {
      let bytes = [UInt8](repeating: byte(block, round), count: 1024)
      arrays[name]?.replaceSubrange(block * 1024..<(block + 1) * 1024, with: bytes)
      try bytes.withUnsafeBytes { try volume?.write($0, at: UInt64(block) * 1024) }
    }
  }

  private mutating func zero(_ name: String, _ range: Range<Int>, keepsSpace: Bool) throws {
    arrays[name]?.replaceSubrange(range, with: repeatElement(0, count: range.count))
    let volume = try engine?.openVolume(named: name)
    defer { if let volume { engine?.closeVolume(volume) } }
    try volume?.zero(in: UInt64(range.lowerBound)..<UInt64(range.upperBound), keepsSpace: keepsSpace)
  }

  private mutating func snapshot(_ names: [String], _ label: String) throws {
    for name in names { arrays["\(name)@\(label)"] = arrays[name] }
    try engine?.snapshot(names.map { ($0, "\($0)@\(label)") }, createdSeconds: 1_000_000_002)
  }

  private mutating func clone(_ source: String, as name: String) throws {
    arrays[name] = arrays[source]
    try engine?.clone(source, as: name, createdSeconds: 1_000_000_003)
  }

  private mutating func delete(_ names: [String]) throws {
    for name in names { arrays[name] = nil }
    try engine?.delete(names, force: false)
  }

  /// What is in both images: trees and inline extents that are shared, shared by three, and shared in part.
  mutating func runFirst() throws {
    try create("vms/web", byteCount: 400 * 1024)
    try create("data", byteCount: 40_001)
    try write("vms/web", stride(from: 0, to: 400, by: 2), 0)
    try write("data", stride(from: 0, to: 6, by: 2), 0)
    try zero("vms/web", 300 * 1024..<310 * 1024, keepsSpace: true)
    try snapshot(["vms/web", "data"], "mon")
    try write("vms/web", stride(from: 0, to: 100, by: 5), 1)
    try zero("vms/web", 200 * 1024..<220 * 1024, keepsSpace: false)
    try snapshot(["vms/web"], "tue")
    try clone("vms/web@mon", as: "copy")
    try write("copy", stride(from: 1, to: 400, by: 50), 2)
    try clone("copy", as: "copy2")
    try write("vms/web", stride(from: 390, to: 400, by: 1), 3)
    try write("data", stride(from: 1, to: 20, by: 3), 3)
    // A rollback, a deletion that is over, a quota and a reservation, other sizes and another default.
    arrays["data"] = arrays["data@mon"]
    try engine?.rollback("data", to: "data@mon", force: false)
    try snapshot(["copy2"], "gone")
    try delete(["copy2@gone", "vms/web@tue"])
    while try engine?.dropDeleted() ?? false {}
    arrays["copy2"]?.append(contentsOf: repeatElement(0, count: 1001))
    try engine?.resize("copy2", to: 400 * 1024 + 1001, allowsSmaller: true, force: false)
    var attributes = VolumeAttributes()
    (attributes.quotaByteCount, attributes.reservationByteCount) = (300 << 10, 250 << 10)
    try engine?.setAttributes(of: "copy2", attributes, force: false)
    attributes = VolumeAttributes()
    attributes.isReadOnly = true
    try engine?.setAttributes(of: "copy", attributes, force: false)
    try engine?.setAttributes(StoreAttributes(defaultVolume: "copy2"))
  }

  /// What the second image has besides: a volume and a snapshot that are deleted and hold their space, a throwaway that nobody
  /// let go of, and changes that only the journal has.
  mutating func runSecond() throws {
    try clone("vms/web", as: "doomed")
    try write("doomed", stride(from: 0, to: 400, by: 3), 4)
    try snapshot(["doomed"], "too")
    try delete(["doomed", "doomed@too"])
    if let throwaway = try engine?.makeEphemeralClone(of: "vms/web@mon") {
      try [UInt8](repeating: 9, count: 5000).withUnsafeBytes { try throwaway.write($0, at: 12_345) }
    }
    try engine?.checkpoint()
    try write("vms/web", stride(from: 10, to: 30, by: 1), 5)
    try write("copy2", stride(from: 399, to: 400, by: 1), 5)
    try engine?.flush()
    try zero("vms/web", 20 * 1024..<25 * 1024, keepsSpace: true)
  }
}

@Suite struct SharingImageTests {
  static let names = ["version-1-snapshots-closed", "version-1-snapshots-journal"]
  private static let images = testsDirectory.appendingPathComponent("Images")

  /// Writes new images where `LACUNA_NEW_IMAGES` says; see docs/testing.md.
  @Test(.enabled(if: ProcessInfo.processInfo.environment["LACUNA_NEW_IMAGES"] != nil, "no new images are wanted"))
  func `new images are written, with snapshots`() throws {
    let directory = try #require(ProcessInfo.processInfo.environment["LACUNA_NEW_IMAGES"])
    for name in Self.names {
      let path = directory + "/" + name
      let store = try FileStoreUnderTest(
        making: path, blockByteCount: SharingImagePlan.blockByteCount, limit: SharingImagePlan.limit)
      var plan = SharingImagePlan(store.engine)
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
  func `an image of version 1 with snapshots opens, and each byte is as it was written`(_ name: String) throws {
    var plan = SharingImagePlan(nil)
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
        #expect(try StoreCheck.findings(on: device) == [])
        let engine = try Engine.open(device, EngineOptions(), readOnly: true).engine
        try compare(engine, plan)
      }
      let copy = directory + "/copy"
      try FileManager.default.copyItem(atPath: path, toPath: copy)
      let device = try FileDevice(opening: FilePath(copy))
      let (engine, warnings) = try Engine.open(device, FileStoreUnderTest.options(limit: SharingImagePlan.limit))
      #expect(warnings == [])
      try compare(engine, plan)
      #expect(try engine.deletionBacklog().count == (name == Self.names[1] ? 3 : 0))
      while try engine.dropDeleted() {}
      try compare(engine, plan)
      #expect(try engine.volumeRecords().count == plan.arrays.count)
      try engine.close()
      #expect(try StoreCheck.findings(on: device) == [])
    }
  }

  private func compare(_ engine: Engine, _ plan: SharingImagePlan) throws {
    let records = try engine.volumeRecords().map(\.record)
    #expect(Set(records.map(\.name)).subtracting([""]) == Set(plan.arrays.keys))
    for (name, bytes) in plan.arrays {
      let volume = try #require(try engine.openVolume(named: name))
      #expect(try volume.contents() == Data(bytes), "\(name)")
      engine.closeVolume(volume)
    }
    #expect(engine.defaultInode == (try engine.findVolume(named: "copy2")?.inode))
    let record = try #require(try engine.findVolume(named: "copy2")?.record)
    #expect((record.quotaBlocks, record.reservationBlocks) == (300, 250))
    #expect(try engine.findVolume(named: "copy")?.record.isReadOnly == true)
  }

  private func compareReader(_ path: String, _ plan: SharingImagePlan, _ directory: String) throws {
    let check = try runReader(path, "check")
    #expect(check.status == 0, "\(check.output)")
    for (name, bytes) in plan.arrays {
      let file = directory + "/out"
      #expect(try runReader(path, "cat", name, file).status == 0)
      #expect(try Data(contentsOf: URL(fileURLWithPath: file)) == Data(bytes), "\(name)")
    }
  }
}
