import Devices
import ExtentFS
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

/// The engine and a reader that was written from docs/format.md alone agree about what is in a store.
@Suite(.enabled(if: hasPython, "there is no python3"), .slow)
struct ReaderTests {
  @Test(arguments: [(1024, 6000, 3), (4096, 1500, 2)])
  func `an independent reader finds the same bytes in a store that was not closed`(
    _ blockByteCount: Int, _ steps: Int, _ levels: Int
  ) throws {
    try withTestDirectory { directory in
      try withSeededGenerator { generator in
        var store = try FileStoreUnderTest(
          making: directory + "/store", blockByteCount: blockByteCount, limit: 24 << 20,
          journalByteCount: UInt64(blockByteCount * 128))
        for (name, blocks) in [("disk", steps), ("vms/web1", 500), ("c", 3)] {
          try store.addVolume(name, byteCount: blocks * blockByteCount + 321)
        }
        for _ in 0..<steps { try store.step(&generator) }
        // Something is left in the journal whatever the steps were.
        let bytes = generator.nonZeroBytes(3 * blockByteCount)
        try bytes.withUnsafeBytes { try store.volumes[0].write($0, at: 77) }
        try compare(store, directory)
        let check = try runReader(store.path, "check")
        #expect(!check.output.contains(" 0 records"))

        try store.engine.close()
        // Only a tree of some levels shows that its inner nodes are read rightly.
        #expect(try store.engine.volumeRecords()[0].record.extents.height >= levels)
        try compareClosed(store.path, store.volumes.map(\.name), directory)
      }
    }
  }

  @Test func `both find the limit of a store, and that it has none`() throws {
    try withTestDirectory { directory in
      let store = try FileStoreUnderTest(making: directory + "/store", blockByteCount: 4096, limit: 8 << 20)
      for limit in [0, 8 << 20 + 7, .max, 0] as [UInt64] {
        try store.engine.setAttributes(StoreAttributes(limitByteCount: limit))
        #expect(try runReader(store.path, "limit").output == "\(limit)\n")
        #expect(try runReader(store.path, "check").output.hasPrefix("no damage found"))
      }
      try store.engine.close()
    }
  }

  @Test func `both leave out a record whose data did not reach the device`() throws {
    try withTestDirectory { directory in
      var store = try FileStoreUnderTest(making: directory + "/store", blockByteCount: 4096, limit: 8 << 20)
      try store.addVolume("disk", byteCount: 1 << 20)
      let (old, new) = ([UInt8](repeating: 1, count: 8192), [UInt8](repeating: 2, count: 8192))
      try old.withUnsafeBytes { try store.volumes[0].write($0, at: 0) }
      try store.volumes[0].flush()
      try new.withUnsafeBytes { try store.volumes[0].write($0, at: 4096) }
      let lines = try runReader(store.path, "map", "disk").output.split(separator: "\n")
      let fields = try #require(lines.dropFirst().first).split(separator: " ")
      #expect(fields[..<3] == ["4096", "8192", "data"])
      let block = try #require(UInt64(fields[3]))

      // What the medium may hold after a power cut: the second of the two blocks is lost.
      var bytes = try Data(contentsOf: URL(fileURLWithPath: store.path))
      try store.engine.close()
      let lost = Int(block + 1) * 4096
      #expect(bytes[lost] == 2)
      bytes.replaceSubrange(lost..<lost + 4096, with: Data(count: 4096))
      let path = directory + "/lost"
      try bytes.write(to: URL(fileURLWithPath: path))
      let read = try runReader(path, "cat", "disk", directory + "/out")
      #expect(read.status == 0 && read.output.contains("did not reach"))
      let (engine, warnings) = try Engine.open(
        try FileDevice(opening: FilePath(path)), FileStoreUnderTest.options(limit: 8 << 20))
      #expect(warnings.count == 1)
      let found = try #require(try engine.openVolume(named: "disk")).contents()
      #expect(found == Data(old + [UInt8](repeating: 0, count: 1 << 20 - 8192)))
      #expect(try found == Data(contentsOf: URL(fileURLWithPath: directory + "/out")))
      try engine.close()
    }
  }

  @Test func `a store opens whose device lost the growth that no sync had covered`() throws {
    try withTestDirectory { directory in
      let path = directory + "/store"
      var store = try FileStoreUnderTest(making: path, blockByteCount: 4096, limit: 1 << 20)
      try store.addVolume("disk", byteCount: 4 << 20)
      try store.engine.close()
      let size = try FileManager.default.attributesOfItem(atPath: path)[.size] as? UInt64
      var bytes = [UInt8](repeating: 3, count: 2 << 20)
      // The first store's device must be gone before the file is opened again.
      try FileManager.default.moveItem(atPath: path, toPath: directory + "/moved")
      try FileManager.default.copyItem(atPath: directory + "/moved", toPath: path)
      let engine = try Engine.open(
        try FileDevice(opening: FilePath(path)), FileStoreUnderTest.options(limit: 8 << 20)
      ).engine
      let volume = try #require(try engine.openVolume(named: "disk"))
      try bytes.withUnsafeBytes { try volume.write($0, at: 0) }
      let short = directory + "/short"
      try FileManager.default.copyItem(atPath: path, toPath: short)
      let handle = try #require(FileHandle(forUpdatingAtPath: short))
      try handle.truncate(atOffset: try #require(size))
      try handle.close()
      try engine.close()

      let (again, warnings) = try Engine.open(
        try FileDevice(opening: FilePath(short)), FileStoreUnderTest.options(limit: 8 << 20), readOnly: true)
      #expect(!warnings.isEmpty)
      let read = try runReader(short, "cat", "disk", directory + "/out")
      #expect(read.status == 0 && read.output.contains("did not reach"))
      bytes = [UInt8](try #require(try again.openVolume(named: "disk")).contents())
      #expect(try Data(bytes) == Data(contentsOf: URL(fileURLWithPath: directory + "/out")))
    }
  }

  @Test func `the reader's check notices a changed byte of each kind of block`() throws {
    try withTestDirectory { directory in
      var store = try FileStoreUnderTest(making: directory + "/store", blockByteCount: 1024, limit: 1 << 20)
      try store.addVolume("disk", byteCount: 100 << 10)
      try [UInt8](repeating: 9, count: 100 << 10).withUnsafeBytes { try store.volumes[0].write($0, at: 0) }
      try store.engine.close()
      #expect(try runReader(store.path, "check").status == 0)

      let bytes = try [UInt8](Data(contentsOf: URL(fileURLWithPath: store.path)))
      func number(at offset: Int) -> Int { (0..<8).reversed().reduce(0) { $0 << 8 | Int(bytes[offset + $1]) } }
      let superblock = number(at: 64) > number(at: 65536 + 64) ? 0 : 65536
      let (inodes, space) = (number(at: superblock + 152), number(at: superblock + 216))
      let record = space * 1024 + 64 + 8
      let group = (131_072 + 65536) / 1024
      let bitmap = group + Int(bytes[record + 8])
      let map = try runReader(store.path, "map", "disk").output
      let data = try #require(map.split(whereSeparator: \.isWhitespace).dropFirst(3).first.flatMap { Int($0) })
      let page = (data - group) / 256
      let sums = group + 2 + 2 * page + Int(bytes[record + 12] >> UInt8(page) & 1)
      for block in [inodes, space, bitmap, sums, data] {
        var changed = bytes
        changed[block * 1024 + 100] ^= 4
        try Data(changed).write(to: URL(fileURLWithPath: directory + "/changed"))
        let check = try runReader(directory + "/changed", "check")
        #expect(check.status == 1 && check.output.contains("\(block)"), "\(check.output)")
      }
    }
  }

  /// Compares every volume's bytes and map, and runs both checks.
  private func compare(_ store: FileStoreUnderTest, _ directory: String) throws {
    let check = try runReader(store.path, "check")
    #expect(check.status == 0, "\(check.output)")
    for volume in store.volumes { try compare(volume, store.path, directory) }
  }

  private func compareClosed(_ path: String, _ names: [String], _ directory: String) throws {
    let check = try runReader(path, "check")
    #expect(check.status == 0 && check.output.contains(" 0 records"), "\(check.output)")
    let copy = directory + "/copy"
    try FileManager.default.copyItem(atPath: path, toPath: copy)
    let device = try FileDevice(opening: FilePath(copy), access: .readOnly)
    #expect(try StoreCheck.findings(on: device) == [])
    let engine = try Engine.open(device, EngineOptions(), readOnly: true).engine
    for name in names { try compare(try #require(try engine.openVolume(named: name)), path, directory) }
  }

  private func compare(_ volume: DiskVolume, _ path: String, _ directory: String) throws {
    let file = directory + "/out"
    let read = try runReader(path, "cat", volume.name, file)
    #expect(read.status == 0, "\(read.output)")
    #expect(try volume.contents() == Data(contentsOf: URL(fileURLWithPath: file)))
    let map = try runReader(path, "map", volume.name).output
    #expect(try joined(map) == volume.map())
  }

  /// The reader's map without blocks, and with neighbours of one kind joined.
  private func joined(_ map: String) -> [String] {
    var ranges: [(start: Int, count: Int, kind: Substring)] = []
    for line in map.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard fields.count >= 3, let start = Int(fields[0]), let count = Int(fields[1]) else { return [String(line)] }
      if let last = ranges.last, last.kind == fields[2], last.start + last.count == start {
        ranges[ranges.count - 1].count += count
      } else {
        ranges.append((start, count, fields[2]))
      }
    }
    return ranges.map { "\($0.start) \($0.count) \($0.kind)" }
  }
}
