import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct TreeCacheTests {
  private func bigTree(_ store: TreeTestStore) throws -> TreeRoot {
    let edits = (0..<4000 as Range<UInt64>).map { ExtentEdit(2 * $0..<2 * $0 + 1, .physical(5 + 2 * $0)) }
    return try store.merge { try $0.mergeExtents(root: .empty, owner: 7, edits: edits) }.root
  }

  @Test(arguments: [0, 1024, 8192, 20_000, 65_536])
  func `the cache holds no more bytes than it may`(byteLimit: Int) throws {
    let store = try TreeTestStore(cacheByteLimit: byteLimit)
    let root = try bigTree(store)
    try store.cache.reader(root, .extents, owner: 7).forEach { _ in true }
    #expect(store.cache.nodeCount <= max(1, byteLimit / 1024))
    #expect(store.cache.nodeCount >= max(1, byteLimit / 1024 / 2))
  }

  @Test func `a second look-up reads nothing`() throws {
    let store = try TreeTestStore()
    let root = try bigTree(store)
    let cache = NodeCache(device: store.device, blockSize: store.cache.blockSize, byteLimit: 1 << 20)
    let reader = cache.reader(root, .extents, owner: 7)
    _ = try reader.floor(3000)
    #expect(cache.counts == (0, UInt64(root.height)))
    _ = try reader.floor(3001)
    #expect(cache.counts == (UInt64(root.height), UInt64(root.height)))
  }

  @Test func `a block written anew is not taken for what it was`() throws {
    let store = try TreeTestStore()
    let edits = [ExtentEdit(1..<2, .physical(5))]
    let old = try store.merge { try $0.mergeExtents(root: .empty, owner: 7, edits: edits) }.root
    let empty = try store.merge {
      try $0.mergeExtents(root: old, owner: 7, edits: [ExtentEdit(1..<2, nil)])
    }.root
    #expect(empty == .empty)
    let new = try store.merge {
      try $0.mergeExtents(root: .empty, owner: 7, edits: [ExtentEdit(1..<2, .physical(6))])
    }.root
    #expect(new.pointer.block == old.pointer.block)
    #expect(try store.cache.reader(new, .extents, owner: 7).floor(1)?.extent.target == .physical(6))
    expectDamaged { _ = try store.cache.reader(old, .extents, owner: 7).floor(1) }
  }

  @Test func `a node in memory is not taken for one of another tree`() throws {
    let store = try TreeTestStore()
    let root = try bigTree(store)
    expectDamaged { _ = try store.cache.reader(root, .shared, owner: 7).floor(1) }
  }

  @Test func `many threads read through a small cache`() throws {
    let store = try TreeTestStore(cacheByteLimit: 16_384)
    let root = try bigTree(store)
    let reader = store.cache.reader(root, .extents, owner: 7)
    try inThreads(4) { thread in
      var generator = SeededGenerator(seed: UInt64(thread))
      for _ in 0..<2000 {
        let key = generator.number(below: 8000 as UInt64)
        let extent = try reader.floor(key)?.extent
        try check(extent?.target == .physical(5 + key / 2 * 2), "floor(\(key)) is \(String(describing: extent))")
      }
    }
  }
}
