import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// Damage that all checksums agree to, and that the check of a store names.
@Suite struct StoreCheckTests {
  /// A closed store with two volumes, and where its checksums are.
  private static func make() throws -> (device: CrashDevice, seals: Seals) {
    let device = CrashDevice(byteCount: 0, maximumByteCount: 3 << 20)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    for name in ["first", "second"] {
      let volume = try engine.createVolume(named: name, byteCount: 100 << 10, createdSeconds: 0)
      try [UInt8](repeating: 7, count: 5000).withUnsafeBytes { try volume.write($0, at: 3000) }
    }
    try engine.close()
    let copy = CrashDevice(device.image, maximumByteCount: 3 << 20, records: false)
    #expect(try StoreCheck.findings(on: copy) == [])
    return (copy, try Seals(device.image))
  }

  /// A place in a store, and what to put there.
  struct Damage: Sendable, CustomTestStringConvertible {
    /// The superblock's name, or that of a kind of node.
    var block: String
    var offset: UInt64
    var byteCount = 8
    /// What to make of the number that is there.
    var change: @Sendable (UInt64) -> UInt64
    var kind = Finding.Kind.number
    var finding: String

    var testDescription: String { "\(block), \(offset): \(finding)" }
  }

  private static let entry: UInt64 = 64

  @Test func `the kinds of findings have the names that docs/control.md tells programs`() {
    #expect(
      Finding.Kind.allCases.map(\.rawValue) == [
        "superblock", "metadata", "number", "name", "feature", "extent", "references", "bitmap", "data", "tail",
        "earlier", "more",
      ])
  }

  @Test(arguments: [
    Damage(block: "superblock", offset: 112, change: { _ in 2 }, finding: "next inode is 2, and 2 is in use"),
    Damage(block: "superblock", offset: 120, change: { _ in 99 }, finding: "default inode 99 is not there"),
    Damage(block: "superblock", offset: 128, change: { $0 + 1 }, finding: "used blocks, and the trees reach"),
    Damage(block: "superblock", offset: 136, change: { $0 - 1 }, finding: "counts 0 groups"),
    Damage(
      block: "space 0", offset: entry + 8, byteCount: 4, change: { $0 - 1 }, finding: "free blocks, and its bitmap"),
    Damage(
      block: "names 0", offset: entry + 8, change: { _ in 77 }, kind: .name,
      finding: "references inode 77, which does not exist"),
    Damage(block: "names 0", offset: entry + 8, change: { _ in 77 }, kind: .name, finding: "no name references it"),
    Damage(block: "names 0", offset: entry + 8, change: { 3 - $0 }, kind: .name, finding: "two names reference it"),
    Damage(
      block: "names 0", offset: entry + 16, change: { $0 + 1 }, kind: .name, finding: "where no look-up finds it"),
    Damage(
      block: "inodes 0", offset: entry + 8 + 8, change: { _ in 7500 }, kind: .tail,
      finding: "has bytes past the volume's end that are not zero, from byte 332 on"),
    Damage(block: "inodes 0", offset: entry + 8 + 72, change: { $0 + 1 }, finding: "1 unwritten blocks, and has"),
    Damage(
      block: "inodes 0", offset: entry + 8 + 64, change: { $0 + 1 }, finding: "mapped and 0 unwritten blocks, and has"),
  ])
  func `a count or a name that is wrong under right checksums is named`(_ damage: Damage) throws {
    let (device, seals) = try Self.make()
    var start = seals.superblockOffset
    var index: Int?
    if damage.block != "superblock" {
      let found = try #require(seals.blocks.firstIndex { $0.kind == damage.block } as Int?)
      index = found
      start = seals.blocks[found].block * 1024
    }
    let place = start + damage.offset
    let bytes = device.image.bytes(place..<place + UInt64(damage.byteCount))
    let old = bytes.reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
    let new = withUnsafeBytes(of: damage.change(old).littleEndian) { Array($0.prefix(damage.byteCount)) }
    try new.withUnsafeBytes { try device.write($0, at: place) }
    if let index { try seals.seal(device, index) } else { try seals.sealSuperblock(device) }
    let findings = try StoreCheck.findings(on: device)
    #expect(findings.contains { $0.kind == damage.kind && $0.description.contains(damage.finding) }, "\(findings)")
  }
}
