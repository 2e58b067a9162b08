import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct ReferenceCountsTests {
  private typealias Counts = ReferenceCounts

  /// All entries of the tree of shared runs, which must be in order, apart, and as long as they can be where they were touched.
  private func entries(_ store: TreeTestStore, _ root: TreeRoot) throws -> [(blocks: Range<UInt64>, count: UInt64)] {
    var all: [(blocks: Range<UInt64>, count: UInt64)] = []
    try TreeReader(cache: store.cache, root: root, kind: .shared).forEach { entry throws(ExtentFSError) in
      let record = try entry.withValue { value throws(ExtentFSError) in try SharedRecord(decoding: value, at: 0) }
      all.append((entry.key..<entry.key + record.length, record.count))
      return true
    }
    return all
  }

  /// Data in the lower blocks and nodes in the upper ones are retained and released at random, and counted in an array.
  @Test func `counts agree with an array, and what has no reference left is told once`() throws {
    try withSeededGenerator { generator in
      let store = try TreeTestStore(blockCount: 20_000)
      let (dataCount, blockCount) = (600, 660)
      var counts = [UInt64](repeating: 1, count: blockCount)
      var root = TreeRoot.empty
      for round in 0..<300 {
        var expectedGone: Set<UInt64> = []
        var gone: Set<UInt64> = []
        root = try store.merge { merge in
          let references = Counts(store.cache, root: root)
          for _ in 0..<generator.number(below: 40) {
            if generator.oneIn(4) {
              let node = UInt64(dataCount + generator.number(below: blockCount - dataCount))
              if generator.oneIn(2), counts[Int(node)] > 0 {
                counts[Int(node)] -= 1
                let isGone = try references.release(node: node)
                try check(isGone == (counts[Int(node)] == 0), "round \(round): node \(node)")
                // It is written anew at once.
                if isGone { counts[Int(node)] = 1; gone.insert(node); expectedGone.insert(node); break }
              } else {
                try references.retain(node: node)
                counts[Int(node)] += 1
              }
              try check(try references.isShared(node) == (counts[Int(node)] > 1), "round \(round): node \(node)")
            } else {
              let blocks = generator.range(below: UInt64(dataCount), longest: generator.oneIn(3) ? 100 : 3)
              let run = PhysicalRun(block: blocks.lowerBound, count: blocks.length)
              if generator.oneIn(2), blocks.allSatisfy({ counts[Int($0)] > 0 }) {
                for block in blocks { counts[Int(block)] -= 1 }
                if references.release(run) {
                  for block in blocks { try check(gone.insert(block).inserted, "block \(block) went twice") }
                }
              } else if blocks.allSatisfy({ counts[Int($0)] > 0 }) {
                references.retain(run)
                for block in blocks { counts[Int(block)] += 1 }
              }
            }
          }
          let edits = try references.finish { run throws(ExtentFSError) in
            for block in run.blocks where !gone.insert(block).inserted {
              throw ExtentFSError(.damaged, "block \(block) went twice")
            }
          }
          return try merge.mergeKeyed(root: root, kind: .shared, edits: edits)
        }
        for block in 0..<dataCount where counts[block] == 0 {
          expectedGone.insert(UInt64(block))
          counts[block] = 1
        }
        try check(gone == expectedGone, "round \(round): \(gone.symmetricDifference(expectedGone).sorted()) differ")
        var stored = [UInt64](repeating: 1, count: blockCount)
        var end: UInt64 = 0
        for (blocks, count) in try entries(store, root) {
          try check(blocks.lowerBound >= end && count > 1, "round \(round): entries overlap at \(blocks)")
          end = blocks.upperBound
          for block in blocks { stored[Int(block)] = count }
        }
        try check(stored == counts, "round \(round): the table differs from the array")
        let shared = RefcountTree(store.cache, root: root)
        let blocks = generator.range(below: UInt64(blockCount), longest: 200)
        var found: [UInt64] = []
        try shared.forEachPiece(of: PhysicalRun(block: blocks.lowerBound, count: blocks.length)) { piece, count in
          found += repeatElement(count, count: Int(piece.upperBound - piece.lowerBound))
        }
        try check(found == Array(counts[Int(blocks.lowerBound)..<Int(blocks.upperBound)]), "round \(round): pieces")
      }
    }
  }

  @Test func `equal counts of neighbours become one entry`() throws {
    let store = try TreeTestStore()
    var root = TreeRoot.empty
    for block in [5, 7, 6] as [UInt64] {
      root = try store.merge { merge in
        let references = Counts(store.cache, root: root)
        references.retain(PhysicalRun(block: block, count: 1))
        return try merge.mergeKeyed(root: root, kind: .shared, edits: try references.finish { _ in })
      }
    }
    let all = try entries(store, root)
    #expect(all.count == 1 && all[0].blocks == 5..<8 && all[0].count == 2)
  }

  @Test func `stored runs that overlap are damage`() throws {
    let store = try TreeTestStore()
    let edits = [(5, 10), (8, 3)].map { block, length in
      KeyedEdit(
        key: block,
        value: encoded(SharedRecord.encodedByteCount, SharedRecord(length: length, count: 2).encode))
    }
    let root = try store.merge { try $0.mergeKeyed(root: .empty, kind: .shared, edits: edits) }
    let references = Counts(store.cache, root: root)
    references.retain(PhysicalRun(block: 5, count: 12))
    expectDamaged { _ = try references.finish { _ in } }
  }
}
