import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct TreeDamageTests {
  /// Writes a node of the given bytes to a block, and returns a pointer whose checksum is right.
  private func plant(
    _ store: TreeTestStore, block: UInt64, _ header: NodeHeader, _ entries: [(UInt64, [UInt64])]
  ) throws -> BlockPointer {
    var bytes = [UInt8](repeating: 0, count: 1024)
    do {
      var elements = bytes.mutableSpan
      var span = elements.mutableBytes
      header.encode(into: &span)
      var offset = 64
      for (key, value) in entries {
        for word in [key] + value {
          span.store(word, at: offset)
          offset += 8
        }
      }
    }
    try bytes.withUnsafeBytes { try store.device.write($0, at: block * 1024) }
    let checksum = bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: block) }
    return BlockPointer(block: block, generation: header.generation, checksum: checksum)
  }

  private func header(_ level: Int, _ count: Int, block: UInt64, kind: NodeKind = .extents) -> NodeHeader {
    NodeHeader(kind: kind, level: level, count: count, block: block, generation: 3, owner: 7)
  }

  private func words(_ pointer: BlockPointer) -> [UInt64] {
    [pointer.block, pointer.generation, UInt64(pointer.checksum)]
  }

  /// Reads a tree in every way there is, each of which must find the damage.
  private func expectAllFindDamage(_ store: TreeTestStore, _ root: TreeRoot, at key: UInt64) {
    let reader = store.cache.reader(root, .extents, owner: 7)
    expectDamaged { _ = try reader.floor(key) }
    expectDamaged { try reader.forEach { _ in true } }
    expectDamaged { try reader.forEachExtent(in: 0..<1 << 62) { _ in true } }
    var found: ExtentFSError?
    do {
      let edits = [ExtentEdit(key..<key + 1, .physical(77))]
      let result = try TreeMerge(cache: store.cache, writer: Nowhere())
        .mergeExtents(root: root, owner: 7, edits: edits)
      found = result.damage
      #expect(result.leftOut == edits)
    } catch {
      found = error
    }
    #expect(found?.code == .damaged)
  }

  @Test func `every single bit changed in a node is found`() throws {
    let store = try TreeTestStore(cacheByteLimit: 0)
    let edits = (0..<30 as Range<UInt64>).map { ExtentEdit(2 * $0..<2 * $0 + 1, .physical(5 + 2 * $0)) }
    let root = try store.merge { try $0.mergeExtents(root: .empty, owner: 7, edits: edits) }.root
    let offset = root.pointer.block * 1024
    var bytes = [UInt8](repeating: 0, count: 1024)
    try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: offset) }
    for index in 0..<1024 {
      for bit in 0..<8 {
        bytes[index] ^= 1 << bit
        try bytes.withUnsafeBytes { try store.device.write($0, at: offset) }
        let cache = NodeCache(device: store.device, blockSize: store.cache.blockSize, byteLimit: 0)
        var code: ExtentFSError.Code?
        do { _ = try cache.root(root, kind: .extents, owner: 7) } catch { code = error.code }
        try check(code == .damaged, "bit \(bit) of byte \(index) changed, and the node was taken")
        bytes[index] ^= 1 << bit
      }
    }
  }

  @Test func `a node in another block's place is found`() throws {
    let store = try TreeTestStore()
    let entries: [(UInt64, [UInt64])] = [(1, [2, 1])]
    let pointer = try plant(store, block: 9, header(0, 1, block: 9), entries)
    var bytes = [UInt8](repeating: 0, count: 1024)
    try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: 9 * 1024) }
    try bytes.withUnsafeBytes { try store.device.write($0, at: 10 * 1024) }
    let moved = BlockPointer(block: 10, generation: 3, checksum: pointer.checksum)
    expectAllFindDamage(store, TreeRoot(pointer: moved, height: 1), at: 1)
  }

  @Test func `headers that contradict the pointer are damage`() throws {
    let store = try TreeTestStore()
    var wrong = Array(repeating: header(0, 1, block: 9), count: 6)
    wrong[0].kind = .shared
    wrong[1].level = 1
    wrong[2].count = 0
    wrong[3].count = 41
    wrong[4].count = 65_535
    wrong[5].block = 10
    for header in wrong {
      let pointer = try plant(store, block: 9, header, [(1, [2, 1])])
      expectAllFindDamage(store, TreeRoot(pointer: pointer, height: 1), at: 1)
    }
    var pointer = try plant(store, block: 9, header(0, 1, block: 9), [(1, [2, 1])])
    #expect(try store.cache.reader(TreeRoot(pointer: pointer, height: 1), .extents, owner: 7).floor(5)?.key == 1)
    pointer.generation = 4
    expectAllFindDamage(store, TreeRoot(pointer: pointer, height: 1), at: 1)
  }

  @Test func `who wrote a node is checked but for extents, which others may share`() throws {
    let store = try TreeTestStore()
    let shared = TreeRoot(pointer: try plant(store, block: 9, header(0, 1, block: 9), [(1, [2, 1])]), height: 1)
    // The second time it is in memory.
    for owner in [7, 8, 0] as [UInt64] {
      #expect(try store.cache.reader(shared, .extents, owner: owner).floor(5)?.key == 1)
    }
    let named = try plant(store, block: 10, header(0, 1, block: 10, kind: .names), [(1, [2])])
    let root = TreeRoot(pointer: named, height: 1)
    expectDamaged { _ = try store.cache.reader(root, .names).floor(5) }
    #expect(try store.cache.reader(root, .names, owner: 7).floor(5)?.key == 1)
    expectDamaged { _ = try store.cache.reader(root, .names).floor(5) }
  }

  @Test(
    arguments: [
      [(5, [9, 1]), (5, [20, 1])], [(5, [9, 1]), (4, [20, 1])], [(5, [9, 3]), (7, [20, 1])],
      [(5, [9, 0])], [(5, [0, 1])], [(5, [9, 1 | 2 << 32])], [(.max, [9, 1])], [(5, [.max, 1])],
    ] as [[(UInt64, [UInt64])]])
  func `leaves whose extents cannot be are damage`(entries: [(UInt64, [UInt64])]) throws {
    let store = try TreeTestStore()
    let pointer = try plant(store, block: 9, header(0, entries.count, block: 9), entries)
    expectAllFindDamage(store, TreeRoot(pointer: pointer, height: 1), at: 5)
  }

  @Test func `children that do not fit their parent are damage`() throws {
    for firstKey in [9, 11, 20] as [UInt64] {
      let store = try TreeTestStore()
      let child = try plant(store, block: 9, header(0, 1, block: 9), [(firstKey, [50, 1])])
      let root = try plant(store, block: 8, header(1, 1, block: 8), [(10, words(child))])
      expectAllFindDamage(store, TreeRoot(pointer: root, height: 2), at: 10)
    }
    // The first child's extent reaches into the second one's keys.
    let store = try TreeTestStore()
    let left = try plant(store, block: 9, header(0, 1, block: 9), [(10, [50, 11])])
    let right = try plant(store, block: 10, header(0, 1, block: 10), [(20, [90, 1])])
    let root = try plant(store, block: 8, header(1, 2, block: 8), [(10, words(left)), (20, words(right))])
    expectAllFindDamage(store, TreeRoot(pointer: root, height: 2), at: 10)
  }

  @Test func `a node twice in a tree, a wrong level and a cycle are damage`() throws {
    let store = try TreeTestStore()
    let leaf = try plant(store, block: 9, header(0, 1, block: 9), [(10, [50, 1])])
    let twice = try plant(store, block: 8, header(1, 2, block: 8), [(10, words(leaf)), (20, words(leaf))])
    expectAllFindDamage(store, TreeRoot(pointer: twice, height: 2), at: 20)
    let high = try plant(store, block: 7, header(2, 1, block: 7), [(10, words(leaf))])
    expectAllFindDamage(store, TreeRoot(pointer: high, height: 3), at: 10)
    // No node can hold its own checksum; that of the cached one cannot be changed; so the level stops a cycle.
    let cycle = BlockPointer(block: 7, generation: 3, checksum: 0)
    let self7 = try plant(store, block: 7, header(1, 1, block: 7), [(10, words(cycle))])
    expectAllFindDamage(store, TreeRoot(pointer: self7, height: 2), at: 10)
  }

  @Test(arguments: [0, 60_000, 1 << 54, .max] as [UInt64])
  func `pointers to where no block is are damage`(block: UInt64) throws {
    let store = try TreeTestStore()
    let nowhere = BlockPointer(block: block, generation: 3, checksum: 5)
    let root = try plant(store, block: 8, header(1, 1, block: 8), [(10, words(nowhere))])
    expectAllFindDamage(store, TreeRoot(pointer: root, height: 2), at: 10)
  }

  @Test func `nodes of random bytes under a right checksum are never a trap`() throws {
    try withSeededGenerator { generator in
      let store = try TreeTestStore()
      for _ in 0..<3000 {
        let level = generator.number(below: 2)
        let count = 1 + generator.number(below: 30)
        var key: UInt64 = 0
        let entries = (0..<count).map { _ -> (UInt64, [UInt64]) in
          key += generator.oneIn(20) ? generator.next() >> 8 : generator.number(below: 5)
          let far = generator.oneIn(9)
          let first = far ? generator.next() : 1 + generator.number(below: 20)
          return (key, level == 0 ? [first, generator.number(below: 4)] : [first, 3, generator.next() >> 32])
        }
        let block = 1 + UInt64(generator.number(below: 20))
        let pointer = try plant(store, block: block, header(level, count, block: block), entries)
        let root = TreeRoot(pointer: pointer, height: level + 1)
        let reader = store.cache.reader(root, .extents, owner: 7)
        try? reader.forEachExtent(in: 0..<1 << 62) { _ in true }
        let edits = [ExtentEdit(3..<9, .physical(77)), ExtentEdit(30..<31, nil)]
        _ = try? store.merge { try $0.mergeExtents(root: root, owner: 7, edits: edits) }
      }
    }
  }
}

/// Takes the nodes of a merge, and puts them nowhere.
private final class Nowhere: TreeWriter {
  let generation: UInt64 = 9
  private var count: UInt64 = 0

  func allocateBlock() throws(ExtentFSError) -> UInt64 {
    count += 1
    return 50_000 + count
  }
  func write(_ node: Node) throws(ExtentFSError) {}
  func freeNode(_ block: UInt64) throws(ExtentFSError) {}
  func freeData(_ run: PhysicalRun) throws(ExtentFSError) {}
}
