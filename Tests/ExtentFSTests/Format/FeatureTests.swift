import Checksums
import Devices
import ExtentFS
import LacunaTestSupport
import SystemPackage
import Testing

/// What a program does with a store that has features which it does not know.
@Suite struct FeatureTests {
  /// A store with one volume, whose superblocks say that it has these features.
  private func makeStore(_ features: [StoreFeature], names: Bool = true) throws -> MemoryDevice {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
    var format = FormatOptions()
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    let volume = try engine.createVolume(named: "disk", byteCount: 1 << 20, createdSeconds: 0)
    try [UInt8](repeating: 5, count: 4096).withUnsafeBytes { try volume.write($0, at: 4096) }
    try engine.close()
    for slot in 0..<2 {
      var superblock = try read(device, slot)
      for feature in features { superblock.add(feature) }
      if !names { superblock.featureNames = [] }
      let bytes = encoded(4096) { superblock.encode(into: &$0) }
      try bytes.withUnsafeBytes { try device.write($0, at: StoreGeometry.superblockOffset(ofSlot: slot)) }
    }
    return device
  }

  private func read(_ device: MemoryDevice, _ slot: Int) throws -> Superblock {
    let bytes = try contents(device, slot)
    return try Superblock(decoding: bytes.span.bytes)
  }

  private func contents(_ device: MemoryDevice, _ slot: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 4096)
    try bytes.withUnsafeMutableBytes { try device.read(into: $0, at: StoreGeometry.superblockOffset(ofSlot: slot)) }
    return bytes
  }

  private func refusal(_ device: MemoryDevice, readOnly: Bool) -> ExtentFSError? {
    #expect(throws: ExtentFSError.self) { _ = try Engine.open(device, EngineOptions(), readOnly: readOnly) }
  }

  private let longest = String(repeating: "x", count: 31)

  @Test func `what must be known refuses the store by its name, or its bit where it has none`() throws {
    let features = [
      StoreFeature(.incompatible, bit: 3, name: "three"), StoreFeature(.incompatible, bit: 63, name: longest),
      StoreFeature(.compatible, bit: 5, name: "not-this"),
    ]
    for readOnly in [true, false] {
      let named = try #require(refusal(try makeStore(features), readOnly: readOnly))
      #expect(named.code == .newerFormat && named.facts.hasSuffix(": 'three', '\(longest)'"), "\(named)")
      let numbered = try #require(refusal(try makeStore(features, names: false), readOnly: readOnly))
      #expect(numbered.code == .newerFormat && numbered.facts.hasSuffix(": bit 3, bit 63"), "\(numbered)")
    }
  }

  @Test func `what allows reading alone allows it, and nothing is written`() throws {
    let device = try makeStore([StoreFeature(.readOnlyCompatible, bit: 0, name: "quick-maps")])
    let before = try (0..<2).map { try contents(device, $0) }
    let error = try #require(refusal(device, readOnly: false))
    #expect(error.code == .readOnlyFormat && error.facts.contains("'quick-maps'"), "\(error)")
    let engine = try Engine.open(device, EngineOptions(), readOnly: true).engine
    let volume = try #require(try engine.openVolume(named: "disk"))
    var found = [UInt8](repeating: 0, count: 4096)
    try found.withUnsafeMutableBytes { try volume.read(into: $0, at: 4096) }
    #expect(found == [UInt8](repeating: 5, count: 4096))
    #expect(throws: ExtentFSError.self) { try found.withUnsafeBytes { try volume.write($0, at: 0) } }
    #expect(try (0..<2).map { try contents(device, $0) } == before)
  }

  @Test func `what may be unknown keeps its bit and its name when the store is written to`() throws {
    let feature = StoreFeature(.compatible, bit: 40, name: "hints")
    let device = try makeStore([feature])
    let engine = try Engine.open(device, EngineOptions()).engine
    _ = try engine.createVolume(named: "more", byteCount: 1, createdSeconds: 0)
    try engine.close()
    for slot in 0..<2 {
      let superblock = try read(device, slot)
      #expect(superblock.compatibleFeatures == 1 << 40 && superblock.featureNames.contains(feature))
    }
    #expect(try StoreCheck.findings(on: device) == [])
  }

  @Test func `names that cannot be are left out and do no harm`() throws {
    let device = try makeStore([StoreFeature(.incompatible, bit: 1, name: "one")])
    try withSeededGenerator { generator in
      for _ in 0..<500 {
        var bytes = try contents(device, 0)
        for _ in 0..<generator.number(below: 40) {
          bytes[280 + generator.number(below: 60)] = UInt8(truncatingIfNeeded: generator.next())
        }
        for index in 12..<16 { bytes[index] = 0 }
        let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
        for index in 0..<4 { bytes[12 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
        let error = #expect(throws: ExtentFSError.self) { try Superblock(decoding: bytes.span.bytes) }
        #expect(error?.code == .newerFormat)
        #expect(error?.facts.utf8.allSatisfy { (0x20...0x7E).contains($0) } == true, "\(error?.facts ?? "")")
      }
    }
  }

  @Test(.enabled(if: hasPython, "there is no python3"))
  func `the independent reader names them too`() throws {
    try withTestDirectory { directory in
      let features = [
        StoreFeature(.incompatible, bit: 3, name: "three"), StoreFeature(.incompatible, bit: 9, name: longest),
      ]
      for (names, words) in [(true, ["'three'", "'\(longest)'"]), (false, ["bit 3", "bit 9"])] {
        let path = directory + "/store"
        let device = try makeStore(features, names: names)
        var bytes = [UInt8](repeating: 0, count: Int(device.byteCount))
        try bytes.withUnsafeMutableBytes { try device.read(into: $0, at: 0) }
        try bytes.withUnsafeBytes { buffer in
          let file = try FileDevice(creating: FilePath("\(path)-\(names)"), byteCount: device.byteCount)
          try file.write(buffer, at: 0)
        }
        let check = try runReader("\(path)-\(names)", "check")
        #expect(check.status == 1)
        for word in words { #expect(check.output.contains(word), "\(check.output)") }
      }
    }
  }
}
