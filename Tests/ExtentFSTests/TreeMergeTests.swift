import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct TreeMergeTests {
  @Test func `an edit of an empty tree makes a leaf, and a hole over it makes the tree empty again`() throws {
    var model = TreeExtentModel(cellCount: 100, try TreeTestStore())
    try model.merge([ExtentEdit(10..<20, .physical(500)), ExtentEdit(20..<30, .physical(510))])
    try model.check()
    #expect(model.root.height == 1)
    #expect(try model.store.walk(model.root, .extents, owner: 7).leaves.map(\.count) == [1])
    try model.merge([ExtentEdit(0..<100, nil)])
    try model.check()
    #expect(model.root == .empty)
    #expect(model.store.replacedRuns == [PhysicalRun(block: 500, count: 20)])
  }

  @Test func `holes where nothing is mapped touch no node`() throws {
    var model = TreeExtentModel(cellCount: 4000, try TreeTestStore())
    try model.merge((0..<1000).map { ExtentEdit(4 * $0..<4 * $0 + 1, .physical(10_000 + 7 * $0)) })
    let root = model.root
    try model.merge((0..<1000).map { ExtentEdit(4 * $0 + 1..<4 * $0 + 3, nil) })
    #expect(model.root == root)
    #expect(model.store.written.isEmpty)
    #expect(model.store.given.isEmpty)
  }

  @Test func `no edits leave the root as it is`() throws {
    var model = TreeExtentModel(cellCount: 10, try TreeTestStore())
    try model.merge([])
    #expect(model.root == .empty)
    try model.merge([ExtentEdit(1..<2, .unwritten)])
    let root = model.root
    try model.merge([ExtentEdit(3..<3, .physical(9))])
    #expect(model.root == root)
  }

  @Test func `an edit to what is mapped already replaces nothing`() throws {
    var model = TreeExtentModel(cellCount: 100, try TreeTestStore())
    try model.merge([ExtentEdit(10..<50, .physical(500))])
    try model.merge([ExtentEdit(20..<60, .physical(510))])
    #expect(model.store.replacedRuns.isEmpty)
    try model.check()
  }

  @Test func `a change in one place rewrites one node of each level`() throws {
    var model = TreeExtentModel(cellCount: 40_000, try TreeTestStore())
    try model.merge((0..<10_000).map { ExtentEdit(4 * $0..<4 * $0 + 1, .physical(100_000 + 7 * $0)) })
    #expect(model.root.height == 3)
    try model.merge([ExtentEdit(20_000..<20_001, .physical(5))])
    #expect(model.store.written.count == 3)
    #expect(model.store.given.count == 3)
    try model.check()
  }

  @Test func `a tree that shares its nodes retains what they refer to along the path that it rewrites`() throws {
    var model = TreeExtentModel(cellCount: 40_000, try TreeTestStore())
    try model.merge((0..<10_000).map { ExtentEdit(4 * $0..<4 * $0 + 1, .physical(100_000 + 7 * $0)) })
    let snapshot = model
    model.store.shared = [model.root.pointer.block]
    try model.merge([ExtentEdit(20_000..<20_001, .physical(5))])
    #expect(model.store.retained.count == 3)
    #expect(model.store.retained == model.store.given)
    // All of the old tree is still there, and reads as before.
    try snapshot.checkLookUps(in: 0..<40_000)
    try model.checkLookUps(in: 0..<40_000)
    let nodes = try model.store.walk(snapshot.root, .extents, owner: 7, throughCache: false).blocks
    #expect(nodes.isSubset(of: model.store.used))
  }

  @Test func `a mapping longer than an extent can be takes several, and one hole takes all of them away`() throws {
    let store = try TreeTestStore()
    let end = ExtentRecord.blockLimit >> 24
    var root = try store.merge {
      try $0.mergeExtents(root: .empty, owner: 1, edits: [ExtentEdit(5..<end, .unwritten)])
    }.root
    let reader = store.cache.reader(root, .extents, owner: 1)
    var next: UInt64 = 5
    try reader.forEachExtent(in: 0..<ExtentRecord.blockLimit) { extent in
      #expect(extent.logical == next)
      next = extent.blocks.upperBound
      return true
    }
    #expect(next == end)
    let old = root
    let result = try store.merge {
      try $0.mergeExtents(root: old, owner: 1, edits: [ExtentEdit(0..<end, nil)])
    }
    root = result.root
    #expect(root == .empty)
    #expect(result.reservedBlocks == -Int64(end - 5))
    #expect(store.used.isEmpty)
  }

  @Test func `what is too little for a leaf joins the leaf on its left, and there the extent it continues`() throws {
    var model = TreeExtentModel(cellCount: 600, try TreeTestStore())
    let edits = (0..<120 as Range<UInt64>).map { index in
      ExtentEdit(4 * index..<4 * index + (index == 39 ? 4 : 1), .physical(1000 + 10 * index))
    }
    try model.merge(edits)
    #expect(try model.store.walk(model.root, .extents, owner: 7).leaves.map(\.count) == [40, 40, 40])
    try model.merge([ExtentEdit(160..<161, .physical(1394)), ExtentEdit(161..<320, nil)])
    try model.check()
    #expect(try model.store.walk(model.root, .extents, owner: 7).leaves.map(\.count) == [40, 40])
    #expect(model.store.written.count == 2)
  }

  @Test func `random edits of extents agree with an array`() throws {
    try withSeededGenerator { generator in
      // A cache of few nodes in the second round, so that most are read and verified again.
      for cacheByteLimit in [1 << 20, 1 << 14] {
        var model = TreeExtentModel(cellCount: 3000, try TreeTestStore(cacheByteLimit: cacheByteLimit))
        for round in 0..<900 {
          let longest = [1, 4, 4, 30, 400][generator.number(below: 5)] as UInt64
          let start = generator.number(below: 3000 as UInt64)
          let edits = model.randomEdits(
            1 + generator.number(below: generator.oneIn(4) ? 400 : 12), longest: longest,
            in: (generator.oneIn(2) ? 0 : start)..<3000, &generator)
          try model.merge(edits)
          if round % 16 == 0 { try model.check(throughCache: round % 64 != 0) }
          let range = generator.range(below: 3000, longest: 600)
          try model.checkLookUps(in: Int(range.lowerBound)..<Int(range.upperBound))
        }
        try model.check(throughCache: false)
      }
    }
  }

  @Test(arguments: [NodeKind.inodes, .names, .space, .shared])
  func `random edits of keys agree with a dictionary`(kind: NodeKind) throws {
    try withSeededGenerator { generator in
      let store = try TreeTestStore(cacheByteLimit: 1 << 16)
      var model: [UInt64: [UInt8]] = [:]
      var root = TreeRoot.empty
      let keys: [UInt64] = [0, .max] + (0..<1200).map { _ in generator.next() }
      for round in 0..<300 {
        var edits: [UInt64: KeyedEdit] = [:]
        let deletes = [2, 2, 10][round / 100]
        for _ in 0..<1 + generator.number(below: 150) {
          let key = keys[generator.number(below: keys.count)]
          let value = generator.number(below: 12) < deletes ? nil : generator.nonZeroBytes(kind.valueByteCount)
          edits[key] = KeyedEdit(key: key, value: value)
        }
        let sorted = edits.values.sorted { $0.key < $1.key }
        let old = root
        root = try store.merge { try $0.mergeKeyed(root: old, kind: kind, edits: sorted) }
        for edit in sorted { model[edit.key] = edit.value }
        guard round % 10 == 9 else { continue }
        let (leaves, blocks) = try store.walk(root, kind)
        try check(blocks == store.used, "the tree has \(blocks), in use are \(store.used)")
        let found = leaves.flatMap { leaf in
          (0..<leaf.count).map { index in (leaf.key(at: index), leaf.withValue(at: index, bytes)) }
        }
        try check(found.map(\.0) == model.keys.sorted(), "the keys differ")
        try check(found.allSatisfy { model[$0.0] == $0.1 }, "the values differ")
        let key = keys[generator.number(below: keys.count)]
        let reader = store.cache.reader(root, kind)
        try check(reader.find(key)?.withValue(bytes) == model[key], "find(\(key))")
        try check(reader.floor(key)?.key == model.keys.filter { $0 <= key }.max(), "floor(\(key))")
        var visited: [UInt64] = []
        try reader.forEach(from: key) { entry in
          visited.append(entry.key)
          return true
        }
        try check(visited == model.keys.filter { $0 >= key }.sorted(), "forEach(from: \(key))")
      }
      let old = root
      let deletes = model.keys.sorted().map { KeyedEdit(key: $0, value: nil) }
      root = try store.merge { try $0.mergeKeyed(root: old, kind: kind, edits: deletes) }
      #expect(root == .empty)
      #expect(store.used.isEmpty)
    }
  }

  @Test func `a merge that runs out of blocks at any point leaves the old tree whole`() throws {
    try withSeededGenerator { generator in
      var model = TreeExtentModel(cellCount: 6000, try TreeTestStore())
      try model.merge((0..<1500).map { ExtentEdit(4 * $0..<4 * $0 + 1, .physical(100_000 + 7 * $0)) })
      let edits = model.randomEdits(60, longest: 40, in: 0..<6000, &generator)
      var failures = 0
      for count in 0..<1000 {
        model.store.allocationsLeft = count
        do {
          try model.merge(edits)
          break
        } catch let error as ExtentFSError {
          #expect(error.code == .outOfSpace)
          failures += 1
          try model.check(throughCache: count % 2 == 0)
        }
      }
      #expect(failures > 10)
      try model.check()
    }
  }

  private func bytes(_ span: RawSpan) -> [UInt8] { span.withUnsafeBytes { Array($0) } }
}
