import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct StoreDumpTests {
  private func sample() throws -> StoreForge {
    let (forge, disk, _, clone) = try StoreForge.sample()
    forge.change(disk) { ($0.quotaBlocks, $0.reservationBlocks, $0.isReadOnly) = (400, 300, true) }
    forge.change(clone) { ($0.kind, $0.name) = (.deleted, "") }
    try forge.finish()
    return forge
  }

  @Test(.slow) func `each block of a store is what it is used for, and nothing is wrong with it`() throws {
    let forge = try sample()
    let dump = try StoreDump(forge.device)
    let geometry = forge.geometry
    var kinds: [BlockDump.Kind: Int] = [:]
    for block in 0..<geometry.firstBlock(ofGroup: 3) {
      let found = try dump.dump(block)
      kinds[found.kind, default: 0] += 1
      var wanted: BlockDump.Kind = .free
      if let group = geometry.group(of: block) {
        let index = block - geometry.firstBlock(ofGroup: group)
        if index < 66 { wanted = index < 2 ? .bitmap : .checksums }
        if forge.references[block] != nil { wanted = forge.nodeBlocks.contains(block) ? .node : .data }
      } else {
        wanted = block < 4 || 64..<68 ~= block ? .superblock : block < 128 ? .unused : .journal
      }
      try check(found.kind == wanted, "block \(block) should be \(wanted): \(found.text)")
      try check(found.problems.isEmpty, "block \(block): \(found.text)")
      try check(found.text.first?.hasPrefix("block \(block): ") == true, "block \(block)")
    }
    #expect(kinds[.superblock] == 8 && kinds[.bitmap] == 6 && kinds[.checksums] == 3 * 64 && kinds[.journal] == 64)
    #expect(throws: ExtentFSError.self) { try dump.dump(forge.device.byteCount / 1024) }
  }

  /// The text of a tree's root.
  private func text(_ forge: StoreForge, _ root: TreeRoot) throws -> String {
    try StoreDump(forge.device).dump(root.pointer.block).text.joined(separator: "\n")
  }

  @Test(.slow) func `each kind of block is decoded`() throws {
    let forge = try sample()
    let superblock = forge.superblock
    func expect(_ text: String, _ parts: String...) {
      for part in parts where !text.contains(part) { Issue.record("\(part) is not in\n\(text.prefix(2000))") }
    }
    let dump = try StoreDump(forge.device)
    expect(
      try dump.dump(0).text.joined(separator: "\n"), "block 0: superblock", "counts: yes",
      "features: incompatible 'snapshots'",
      "block size: 1024", "generation: 9", "used blocks: \(superblock.usedBlockCount)",
      "node blocks: \(superblock.nodeBlockCount)", "promised blocks: ", "transient inodes: 1",
      "tree of inodes: block \(superblock.inodes.pointer.block), generation 9, checksum 0x", ", 2 levels",
      "tree of shared runs: ")
    let leaf = try forge.cache.root(superblock.inodes, kind: .inodes, owner: 0).child(at: 0).block
    expect(
      try text(forge, superblock.inodes), ": inodes node", "level: 1",
      "from 1: block \(leaf), generation 9, checksum 0x")
    expect(
      try dump.dump(leaf).text.joined(separator: "\n"),
      "volume 'disk' (inode 1): 1024000 bytes, 296 mapped, 50 reserved",
      "read-only, quota 400, reservation 300, created 1, tree block ")
    let all = try (0..<forge.geometry.firstBlock(ofGroup: 3)).flatMap { try dump.dump($0).lines }.joined(
      separator: "\n")
    expect(
      all, "snapshot 'disk@monday' (inode 2): ", ", made from inode 1, ", "deleted inode 3: ",
      "tree empty, logical blocks 1 to 4: from block ", "logical blocks 7 to 8: unwritten",
      "logical blocks 700 to 749: unwritten")
    expect(try text(forge, superblock.names), ": names node", "\(NameHash.key(of: "disk").hex): inode 1")
    expect(
      try text(forge, superblock.space), ": space node", "group 0: ", "bitmap in slot 1, checksum 0x",
      "checksum blocks: 0 in slot 0, checksum 0x")
    let shared = try forge.cache.root(superblock.shared, kind: .shared, owner: 0)
    expect(try text(forge, superblock.shared), ": shared node", "level: 1", "from \(shared.key(at: 0)): block ")
    expect(all, "blocks 258 to 258: 2 references")
    let root = try #require(forge.inodes[1]?.extents)
    expect(try text(forge, root), ": extents node", "owner: 1", "references: 1", "from 0: block ")
    let group = forge.geometry.headBlockCount
    expect(
      try dump.dump(group + 1).text.joined(separator: "\n"), ": bitmap", "in use: yes", "free blocks: ",
      "used: blocks 192 to 259")
    expect(try dump.dump(group).text.joined(separator: "\n"), ": bitmap", "in use: no", "free blocks: 8192")
    expect(
      try dump.dump(group + 2).text.joined(separator: "\n"), ": checksums", "in use: yes",
      "of blocks 192 to 447".replacing("of blocks ", with: "of blocks: "), "from block 256: 00000000 00000000 ")
    expect(
      try dump.dump(group + 66).text.joined(separator: "\n"), ": data", "checksum: 0x", "references: 2",
      "0000  02 21 40 ")
    expect(try dump.dump(group + 8000).text.joined(separator: "\n"), ": free", "0000  00 00 00", "*")
    expect(try dump.dump(130).text.joined(separator: "\n"), ": journal", "no records of this store")
  }

  @Test func `a journal's records are shown, also where they begin in another block`() throws {
    let store = try HostileStore()
    let dump = try StoreDump(store.device())
    var text: [String] = []
    for block in 128..<192 as Range<UInt64> {
      let found = try dump.dump(block)
      #expect(found.kind == .journal && found.problems == [])
      text += found.lines
    }
    let records = store.seals.records(store.image)
    #expect(!records.isEmpty)
    for record in records {
      let sequence = store.image.number(at: record.lowerBound + 24)
      let blocks = record.lowerBound / 1024...(record.upperBound - 1) / 1024
      for block in blocks {
        let lines = try dump.dump(block).lines
        #expect(
          lines.contains { $0.contains(": record \(sequence), durable ") },
          "record \(sequence) in block \(block): \(lines)")
      }
    }
    for word in ["map: inode ", "unmap: inode "] { #expect(text.contains { $0.contains(word) }, "no \(word)") }
    // Opened, it begins a new epoch.
    let device = store.device()
    let engine = try Engine.open(device, HostileStore.shape.options).engine
    try engine.close()
    let old = try StoreDump(device)
    #expect(try (128..<192).contains { try old.dump($0).lines.contains { $0.contains(" of epoch ") } })
  }

  @Test func `a changed byte of each kind of block is told`() throws {
    let forge = try sample()
    let superblock = forge.superblock
    let group = forge.geometry.headBlockCount
    let extents = try #require(forge.inodes[2]?.extents.pointer.block)
    for block in [
      0, group + 1, group + 2, group + 66, superblock.inodes.pointer.block, superblock.names.pointer.block,
      superblock.space.pointer.block, superblock.shared.pointer.block, extents,
    ] {
      let offset = block * 1024 + 100
      var byte: [UInt8] = [0]
      try byte.withUnsafeMutableBytes { try forge.device.read(into: $0, at: offset) }
      byte[0] ^= 0x40
      try byte.withUnsafeBytes { try forge.device.write($0, at: offset) }
      let found = try StoreDump(forge.device, at: superblock).dump(block)
      #expect(found.problems.contains { $0.contains("checksum") }, "block \(block): \(found.text)")
      byte[0] ^= 0x40
      try byte.withUnsafeBytes { try forge.device.write($0, at: offset) }
      #expect(try StoreDump(forge.device, at: superblock).dump(block).problems == [])
    }
  }

  @Test(.slow) func `no bytes are a trap`() throws {
    let forge = try sample()
    let whole = try forge.contents()
    try withSeededGenerator { generator in
      for round in 0..<9 {
        let device = try MemoryDevice(byteCount: UInt64(whole.count))
        var bytes = whole
        if round % 3 == 0 {
          // All garbage, with a superblock from elsewhere.
          for index in stride(from: 0, to: bytes.count, by: 7) {
            bytes[index] = UInt8(truncatingIfNeeded: generator.next())
          }
        } else {
          // Changes of what is in use, with no checksums right.
          for block in forge.references.keys.sorted() + Array(0..<258) where generator.oneIn(2) {
            for _ in 0..<generator.number(below: 20) {
              bytes[Int(block) * 1024 + generator.number(below: generator.oneIn(2) ? 1024 : 100)] =
                generator.oneIn(3) ? 0xFF : UInt8(truncatingIfNeeded: generator.next())
            }
          }
        }
        try bytes.withUnsafeBytes { try device.write($0, at: 0) }
        let dump = try StoreDump(device, at: forge.superblock)
        for block in Array(0..<260) + forge.references.keys.sorted() { _ = try dump.dump(block).text }
      }
    }
  }

  @Test func `no journal is a trap, and a node that claims to be anything is none`() throws {
    let store = try HostileStore()
    try withSeededGenerator { generator in
      for _ in 0..<5 {
        let device = store.device()
        for _ in 0..<200 {
          try device.put(
            HostileStore.boundaries[generator.number(below: 16)], at: 131_072 + 8 * generator.number(below: 8192))
        }
        // A header of a node, wherever.
        for block in [300, 400, 500] as [UInt64] {
          let kind = NodeKind.allCases[generator.number(below: 5)]
          let header = NodeHeader(
            kind: kind, level: generator.number(below: 30), count: generator.number(below: 65536), block: block,
            generation: generator.next(), owner: generator.number(below: 6))
          try device.write(encoded(1024) { header.encode(into: &$0) }, at: block * 1024)
        }
        let dump = try StoreDump(device)
        for block in 0..<store.image.byteCount / 1024 { _ = try dump.dump(block).text }
      }
    }
  }
}
