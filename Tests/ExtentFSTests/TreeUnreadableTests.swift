import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Merges into trees of which some nodes cannot be read.
@Suite(.slow) struct TreeUnreadableTests {
  private static let cellCount = 6000

  /// The parts of a tree that its leaves are for, with the blocks of the nodes that lead there.
  private static func parts(
    _ store: TreeTestStore, _ root: TreeRoot
  ) throws -> [(keys: Range<UInt64>, path: [UInt64])] {
    var all: [(keys: Range<UInt64>, path: [UInt64])] = []
    func visit(_ node: Node, _ keys: Range<UInt64>, _ path: [UInt64]) throws {
      let path = path + [node.pointer.block]
      guard node.level > 0 else { return all.append((keys, path)) }
      for index in 0..<node.count {
        let lower = index == 0 ? keys.lowerBound : node.key(at: index)
        let upper = index + 1 < node.count ? node.key(at: index + 1) : keys.upperBound
        try visit(
          try store.cache.child(of: node, at: index, upper: upper == .max ? nil : upper).node, lower..<upper, path)
      }
    }
    try visit(try store.cache.root(root, kind: .extents, owner: 7), 0..<UInt64.max, [])
    return all
  }

  private static func bytes(of block: UInt64, _ store: TreeTestStore) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: 1024)
    try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: block << 10) }
    return bytes
  }

  private static func edits(_ generator: inout SeededGenerator) -> [ExtentEdit] {
    var edits: [ExtentEdit] = []
    var next: UInt64 = 0
    let step = generator.oneIn(2) ? 400 : 12
    while true {
      let start = next + generator.number(below: UInt64(step))
      let end = start + 1 + generator.number(below: generator.oneIn(20) ? 900 : 4)
      guard end <= UInt64(cellCount) else { return edits }
      let kind = generator.number(below: 4)
      edits.append(
        ExtentEdit(
          start..<end,
          kind == 0 ? nil : kind == 1 ? .unwritten : .physical(100_000 + generator.number(below: 1 << 30))))
      next = end + 1
    }
  }

  private static func apply(_ edits: [ExtentEdit], to cells: inout [BlockLocation?]) {
    for edit in edits {
      for (index, cell) in edit.blocks.enumerated() { cells[Int(cell)] = edit.target?.advanced(by: UInt64(index)) }
    }
  }

  @Test func `what belongs to nodes that cannot be read is left out, and all else is merged`() throws {
    try withSeededGenerator { generator in
      for round in 0..<60 {
        // Nothing stays in memory but one node.
        let store = try TreeTestStore(cacheByteLimit: 0)
        var cells = [BlockLocation?](repeating: nil, count: Self.cellCount)
        let first = (0..<UInt64(Self.cellCount) / 3).map { ExtentEdit(3 * $0..<3 * $0 + 1, .physical(1000 + 5 * $0)) }
        Self.apply(first, to: &cells)
        let root = try store.merge { try $0.mergeExtents(root: .empty, owner: 7, edits: first) }.root
        let parts = try Self.parts(store, root)
        // A leaf or two, an inner node now and then, the root rarely.
        var damaged: [UInt64: [UInt8]] = [:]
        for _ in 0..<1 + generator.number(below: 3) {
          let path = parts[generator.number(below: parts.count)].path
          let depth = generator.oneIn(12) ? 0 : generator.oneIn(4) ? max(path.count - 2, 0) : path.count - 1
          damaged[path[depth]] = try Self.bytes(of: path[depth], store)
        }
        for (block, bytes) in damaged {
          var bytes = bytes
          bytes[100 + generator.number(below: 800)] ^= 1 << UInt8(generator.number(below: 8))
          try bytes.withUnsafeBytes { try store.device.write($0, at: block << 10) }
        }
        let lost = parts.filter { $0.path.contains { damaged[$0] != nil } }.map(\.keys)
        func isLost(_ cell: Int) -> Bool { lost.contains { $0.contains(UInt64(cell)) } }

        let edits = Self.edits(&generator)
        let before = cells
        Self.apply(edits, to: &cells)
        let result = try store.merge { try $0.mergeExtents(root: root, owner: 7, edits: edits) }
        let touchesLost = edits.contains { edit in lost.contains { $0.overlaps(edit.blocks) } }
        try check((result.damage != nil) == touchesLost, "round \(round): \(String(describing: result.damage))")
        // Exactly what belongs there is left out.
        var leftOut = before
        Self.apply(result.leftOut, to: &leftOut)
        for cell in cells.indices where isLost(cell) {
          try check(
            leftOut[cell] == cells[cell],
            "round \(round): the change of cell \(cell) is neither in the tree nor left out")
        }
        for edit in result.leftOut {
          try check(edit.blocks.allSatisfy { isLost(Int($0)) }, "round \(round): \(edit.blocks) was left out")
        }
        let reader = store.cache.reader(result.root, .extents, owner: 7)
        for cell in cells.indices {
          do {
            let extent = try reader.extent(holding: UInt64(cell))
            let found = extent.map { $0.target.advanced(by: UInt64(cell) - $0.logical) }
            let isRight = !isLost(cell) && found == cells[cell]
            try check(isRight, "round \(round): cell \(cell) is \(String(describing: found))")
          } catch let error as ExtentFSError {
            // A hole beside them, where there was something before, is now looked for in them.
            let isExpected = isLost(cell) || cells[cell] == nil
            try check(isExpected && error.code == .damaged, "round \(round): cell \(cell): \(error)")
          }
        }
        // Once it can be read again, what was left out can be merged.
        for (block, bytes) in damaged { try bytes.withUnsafeBytes { try store.device.write($0, at: block << 10) } }
        let cache = NodeCache(device: store.device, blockSize: store.cache.blockSize, byteLimit: 1 << 20)
        let again = try store.merge { _ in
          try TreeMerge(cache: cache, writer: store)
            .mergeExtents(root: result.root, owner: 7, edits: result.leftOut)
        }
        try check(again.damage == nil && again.leftOut.isEmpty, "round \(round): something is left out again")
        let whole = cache.reader(again.root, .extents, owner: 7)
        for cell in cells.indices {
          let extent = try whole.extent(holding: UInt64(cell))
          let found = extent.map { $0.target.advanced(by: UInt64(cell) - $0.logical) }
          try check(found == cells[cell], "round \(round): cell \(cell) is \(String(describing: found)) in the end")
        }
      }
    }
  }

  @Test func `shared runs that cannot be read count as many, in the tree too, and others as they are`() throws {
    let store = try TreeTestStore(cacheByteLimit: 0)
    func run(_ block: UInt64, _ count: UInt64 = 1) -> PhysicalRun { PhysicalRun(block: block, count: count) }
    // Every tenth block has two references.
    var root = try store.merge { merge in
      let references = ReferenceCounts(store.cache, root: .empty)
      for block in stride(from: 1000 as UInt64, to: 4000, by: 10) { references.retain(run(block)) }
      return try merge.mergeKeyed(root: .empty, kind: .shared, edits: try references.finish { _ in })
    }
    let leaves = try store.walk(root, .shared).leaves
    try #require(leaves.count > 3)
    let lost = leaves[1].key(at: 0)..<leaves[2].key(at: 0)
    try [UInt8](repeating: 1, count: 8).withUnsafeBytes {
      try store.device.write($0, at: leaves[1].pointer.block << 10 + 500)
    }
    // Data in the part that is lost, and in others; a node in it; a block there that nothing had led to.
    let (inside, outside, node, new) = (
      lost.lowerBound + 30, lost.upperBound + 30, lost.lowerBound + 41, lost.lowerBound + 75
    )
    var gone: Set<UInt64> = []
    root = try store.merge { merge in
      let references = ReferenceCounts(store.cache, root: root) { range, body throws(ExtentFSError) in
        // All blocks are in use but those that end in 5.
        var next = range.lowerBound
        while next < min(range.upperBound, 5000) {
          if next % 10 != 5 { body(next..<next + 1) }
          next += 1
        }
      }
      let isShared = try references.isShared(node)
      #expect(isShared)
      let isGone = try references.release(node: node)
      #expect(!isGone)
      for _ in 0..<2 {
        for block in [inside, inside + 1, outside] { if references.release(run(block)) { gone.insert(block) } }
      }
      references.retain(run(new))
      let edits = try references.finish { run throws(ExtentFSError) in gone.formUnion(run.blocks) }
      #expect(references.damage?.code == .damaged)
      return try merge.mergeKeyed(
        root: root, kind: .shared, edits: edits, unreadable: .replace(references.unknownParts))
    }
    #expect(gone == [outside])
    let counts = RefcountTree(store.cache, root: root)
    func count(_ block: UInt64) throws -> UInt64 { try counts.count(of: block) }
    let many: UInt64 = 1 << 32
    for (block, wanted) in [
      (inside, many - 2), (inside + 1, many - 2), (node, many - 1), (lost.lowerBound + 7, many), (new, 2),
      (lost.lowerBound + 85, 1), (lost.lowerBound - 10, 2), (lost.upperBound, 2), (lost.upperBound + 1, 1),
      (outside, 1),
    ] {
      let found = try count(block)
      #expect(found == wanted, "block \(block)")
    }
  }
}
