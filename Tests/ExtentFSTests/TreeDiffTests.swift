import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct TreeDiffTests {
  private static let blockCount: UInt64 = 2000

  private struct Difference: Equatable, CustomStringConvertible {
    var blocks: Range<UInt64>
    var kind: RangeContent
    var description: String { "\(blocks) \(kind)" }
  }

  /// Each block's physical one; nil for zeroes.
  private func cells(_ base: ExtentBase, _ nodes: NodeCache) throws -> [UInt64?] {
    var cells: [UInt64?] = Array(repeating: nil, count: Int(Self.blockCount))
    _ = try base.forEachPiece(in: 0..<Self.blockCount, nodes) { blocks, location in
      guard let first = location.physicalBlock else { return true }
      for (index, block) in blocks.enumerated() { cells[Int(block)] = first + UInt64(index) }
      return true
    }
    return cells
  }

  private func expected(_ old: [UInt64?], _ new: [UInt64?], in blocks: Range<UInt64>) -> [Difference] {
    var found: [Difference] = []
    for block in blocks where old[Int(block)] != new[Int(block)] {
      let kind: RangeContent = new[Int(block)] == nil ? .hole : .data
      if let last = found.last, last.kind == kind, last.blocks.upperBound == block {
        found[found.count - 1].blocks = last.blocks.lowerBound..<block + 1
      } else {
        found.append(Difference(blocks: block..<block + 1, kind: kind))
      }
    }
    return found
  }

  private func found(
    _ old: ExtentBase, _ new: ExtentBase, in blocks: Range<UInt64>, _ nodes: NodeCache, limit: Int = .max
  ) throws -> [Difference] {
    var found: [Difference] = []
    try TreeDiff.forEachDifference(from: old, to: new, in: blocks, nodes) { blocks, kind in
      found.append(Difference(blocks: blocks, kind: kind))
      return found.count < limit
    }
    return found
  }

  @Test func `differences of trees that share are those of arrays`() throws {
    try withSeededGenerator { generator in
      for _ in 0..<4 {
        let forge = try StoreForge(groupCount: 6)
        let nodes = forge.cache
        var volumes = [forge.make("v", blockCount: Self.blockCount)]
        try forge.merge(try randomEdits(forge, 600, longest: 4, &generator), into: volumes[0])
        for step in 0..<10 {
          let clone = try forge.clone(volumes[generator.number(below: volumes.count)], "v\(step)")
          let count = [1, 3, 40, 300][generator.number(below: 4)]
          try forge.merge(try randomEdits(forge, count, longest: 9, &generator), into: clone)
          volumes.append(clone)
        }
        var bases = volumes.compactMap { forge.inodes[$0] }.map { ExtentBase(inline: [], root: $0.extents) }
        bases.append(ExtentBase())
        for _ in 0..<3 { bases.append(try inline(of: bases[generator.number(below: 5)], nodes, &generator)) }
        let arrays = try bases.map { try cells($0, nodes) }
        for (a, old) in bases.enumerated() {
          for (b, new) in bases.enumerated() {
            let start: UInt64 = generator.number(below: Self.blockCount)
            for blocks in [0..<Self.blockCount, start..<start + generator.number(below: Self.blockCount - start)] {
              let wanted = expected(arrays[a], arrays[b], in: blocks)
              let got = try found(old, new, in: blocks, nodes)
              try check(got == wanted, "in \(blocks): \(got), should be \(wanted)")
              let limit = 1 + generator.number(below: 5)
              let first = try found(old, new, in: blocks, nodes, limit: limit)
              try check(first == Array(wanted.prefix(limit)), "the first \(limit) in \(blocks): \(first)")
            }
          }
        }
      }
    }
  }

  private func randomEdits(
    _ forge: StoreForge, _ count: Int, longest: UInt64, _ generator: inout SeededGenerator
  ) throws -> [ExtentEdit] {
    var edits: [ExtentEdit] = []
    let gap = max(2, 2 * Self.blockCount / UInt64(count) - longest / 2)
    var start: UInt64 = generator.number(below: gap)
    while start < Self.blockCount, edits.count < count {
      let end = min(Self.blockCount, start + 1 + generator.number(below: longest))
      switch generator.number(below: 6) {
      case 0: edits.append(ExtentEdit(start..<end, nil))
      case 1: edits.append(ExtentEdit(start..<end, .unwritten))
      default: edits.append(try forge.data(start..<end))
      }
      start = end + generator.number(below: gap)
    }
    return edits
  }

  /// A few pieces of a mapping, as they are in a record.
  private func inline(
    of base: ExtentBase, _ nodes: NodeCache, _ generator: inout SeededGenerator
  ) throws -> ExtentBase {
    var extents: [ExtentRecord] = []
    try TreeReader(cache: nodes, root: base.root, kind: .extents).forEachExtent(in: 0..<Self.blockCount) { extent in
      if extents.count < 4, generator.oneIn(20) { extents.append(extent) }
      return true
    }
    return ExtentBase(inline: extents, root: .empty)
  }

  @Test func `the cost is that of the change, not of what there is`() throws {
    let forge = try StoreForge(groupCount: 6)
    let volume = forge.make("v", blockCount: 1 << 20)
    var edits: [ExtentEdit] = []
    for block in 0..<20_000 as Range<UInt64> {
      edits.append(ExtentEdit(2 * block..<2 * block + 1, .physical(1 << 30 + 7 * block)))
    }
    try forge.merge(edits, into: volume)
    let old = try #require(forge.inodes[volume]?.extents)
    #expect(old.height == 3)
    let clone = try forge.clone(volume, "c")
    for change in [1, 2, 10] as [UInt64] {
      let spots = (0..<change).map { 3001 + 3000 * $0 }
      try forge.merge(spots.map { ExtentEdit($0..<$0 + 1, .physical(1 << 40 + $0)) }, into: clone)
      let new = try #require(forge.inodes[clone]?.extents)
      let nodes = NodeCache(device: forge.device, blockSize: forge.geometry.blockSize, byteLimit: 1 << 20)
      let got = try found(
        ExtentBase(inline: [], root: old), ExtentBase(inline: [], root: new), in: 0..<1 << 20, nodes)
      #expect(got.map(\.blocks.lowerBound) == spots)
      // Those that only one of the trees has: the root, what is on the way to a change, and a leaf for each that was split.
      let own = try blocks(of: old, forge).symmetricDifference(blocks(of: new, forge)).count
      let (hits, misses) = nodes.counts
      #expect(hits == 0 && misses == own && own <= 2 + 6 * change, "\(misses) nodes were read, \(own) differ")
    }
    let nodes = NodeCache(device: forge.device, blockSize: forge.geometry.blockSize, byteLimit: 1 << 20)
    let new = try #require(forge.inodes[clone]?.extents)
    let part = try found(ExtentBase(inline: [], root: old), ExtentBase(inline: [], root: new), in: 0..<5000, nodes)
    #expect(part.map(\.blocks) == [3001..<3002])
    // Two more lie over the range's end.
    #expect(nodes.counts.misses <= 10)
  }

  /// The blocks of a tree's nodes.
  private func blocks(of root: TreeRoot, _ forge: StoreForge) throws -> Set<UInt64> {
    var blocks: Set<UInt64> = []
    func walk(_ pointer: BlockPointer, _ level: Int) throws {
      blocks.insert(pointer.block)
      guard level > 0 else { return }
      let node = try forge.cache.node(pointer, kind: .extents, level: level, owner: 0)
      for index in 0..<node.count { try walk(node.child(at: index), level - 1) }
    }
    try walk(root.pointer, root.height - 1)
    return blocks
  }

  @Test func `a damaged node is damage, and no trap`() throws {
    let (forge, disk, snapshot, _) = try StoreForge.sample()
    let (old, new) = (try #require(forge.inodes[snapshot]?.extents), try #require(forge.inodes[disk]?.extents))
    try [UInt8](repeating: 3, count: 3).withUnsafeBytes {
      try forge.device.write($0, at: new.pointer.block * 1024 + 70)
    }
    let nodes = NodeCache(device: forge.device, blockSize: forge.geometry.blockSize, byteLimit: 1 << 20)
    expectDamaged {
      _ = try found(ExtentBase(inline: [], root: old), ExtentBase(inline: [], root: new), in: 0..<1000, nodes)
    }
  }

  @Test func `volumes are compared in bytes, up to the end of the later one`() throws {
    let (forge, disk, _, clone) = try StoreForge.sample()
    forge.change(clone) { $0.byteCount = 949 * 1024 + 5 }
    forge.change(disk) { $0.byteCount = 800 * 1024 }
    try forge.finish()
    let engine = try Engine.open(forge.device, EngineOptions(), readOnly: true).engine
    let old = try #require(try engine.openVolume(named: "disk"))
    let new = try #require(try engine.openVolume(named: "clone"))
    func differences(_ range: Range<UInt64>) throws -> [Difference] {
      var found: [Difference] = []
      try engine.forEachDifference(from: old, to: new, in: range) { bytes, kind in
        found.append(Difference(blocks: bytes, kind: kind))
        return true
      }
      return found
    }
    func difference(_ range: Range<UInt64>, _ kind: RangeContent) -> Difference {
      Difference(blocks: range, kind: kind)
    }
    #expect(
      try differences(0..<(.max)) == [
        difference(0..<1024, .data), difference(100 * 1024..<102 * 1024, .data),
        difference(102 * 1024..<104 * 1024, .hole), difference(104 * 1024..<105 * 1024, .data),
        difference(300 * 1024..<302 * 1024, .data), difference(304 * 1024..<306 * 1024, .data),
        difference(308 * 1024..<310 * 1024, .data), difference(900 * 1024..<949 * 1024 + 5, .data),
      ])
    #expect(try differences(500..<600) == [difference(500..<600, .data)])
    #expect(try differences(2000..<2000) == [])
  }
}
