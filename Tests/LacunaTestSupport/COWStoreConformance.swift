package import BlockStores
import Extents
import Testing

/// What every `COWStore` promises beyond what an `ExtentStore` does.
package enum COWStoreConformance {
  package typealias Kind = StoreKind<any COWStore>

  package static let promises: [Promise<Kind>] = [
    Promise("a clone shares every block and raises its count") { kind in
      let store = try kind.make(50)
      let blocks = try makeFile(.one, blockCount: 10, in: store)
      #expect(try counts(of: blocks, in: store) == Array(repeating: 1, count: 10))
      try store.clone(.one, to: .two)
      #expect(try counts(of: blocks, in: store) == Array(repeating: 2, count: 10))
      try store.clone(.two, to: .three)
      #expect(try counts(of: blocks, in: store) == Array(repeating: 3, count: 10))
      #expect(try ExtentStoreConformance.countFree(store) == 40)
      for inode in [Inode.two, .three] {
        #expect(try store.extents(of: inode).runs.runs == store.extents(of: .one).runs.runs)
        #expect(try store.extents(of: inode).byteCount == 5120)
      }
    },

    Promise("a run is shared where one of its blocks is") { kind in
      let store = try kind.make(50)
      let run = try store.allocate(6, near: nil)
      try #require(run.count == 6)
      var extents = ExtentMap()
      extents.byteCount = 1024
      extents.replace(0..<2, with: .physical(run.block + 2))
      try store.setExtents(extents, of: .one, changed: 0..<2)
      #expect(!store.isShared(run))
      try store.clone(.one, to: .two)
      let isShared = { (first: UInt64, count: UInt64) in
        store.isShared(PhysicalRun(block: run.block + first, count: count))
      }
      #expect(isShared(0, 6) && isShared(0, 3) && isShared(2, 1) && isShared(3, 1) && isShared(3, 3))
      #expect(!isShared(0, 2) && !isShared(4, 2))
      try store.free(PhysicalRun(block: run.block + 2, count: 1))
      #expect(!isShared(0, 3) && isShared(3, 1))
    },

    Promise("blocks that are free or not there have no references") { kind in
      let store = try kind.make(50)
      let run = try store.allocate(1, near: nil)
      #expect(try store.referenceCount(of: run.block) == 1)
      try store.free(run)
      for block in [run.block, 0, 1, 50, 51, 1 << 54, UInt64.max - 1, UInt64.max] {
        #expect(try store.referenceCount(of: block) == 0)
      }
    },

    Promise("a clone to an inode that has a mapping is refused and changes nothing") { kind in
      let store = try kind.make(50)
      let blocks = try makeFile(.one, blockCount: 3, in: store)
      _ = try makeFile(.two, blockCount: 2, in: store)
      let before = try store.extents(of: .two).runs.runs
      expectError(.wrongInode) { try store.clone(.one, to: .two) }
      expectError(.wrongInode) { try store.clone(.one, to: .one) }
      #expect(try store.extents(of: .two).runs.runs == before)
      #expect(try counts(of: blocks, in: store) == [1, 1, 1])
    },

    Promise("what somebody has open is not cloned to, and its sharing is not broken") { kind in
      let store = try kind.make(50)
      let blocks = try makeFile(.one, blockCount: 3, in: store)
      do {
        let opened = try store.clone(.one, to: .two)
        let empty = try store.open(.three)
        for inode in [Inode.two, .three] {
          expectError(.inUse) { _ = try store.open(inode) }
          expectError(.inUse) { _ = try store.breakSharing(of: inode, in: 0..<3) }
        }
        expectError(.inUse) { try store.clone(.one, to: .three) }
        #expect(try counts(of: blocks, in: store) == [2, 2, 2])
        withExtendedLifetime((opened, empty)) {}
      }
      _ = try store.breakSharing(of: .two, in: 0..<3)
      #expect(try counts(of: blocks, in: store) == [1, 1, 1])
      try store.clone(.one, to: .three)
    },

    Promise("a clone of an unknown inode is an empty file, and there") { kind in
      let store = try kind.make(50)
      try store.clone(.one, to: .two)
      #expect(try store.extents(of: .two).runs.isEmpty)
      expectError(.wrongInode) { try store.clone(.one, to: .two) }
    },

    Promise("reserved zeroes are cloned without a count") { kind in
      let store = try kind.make(50)
      var extents = ExtentMap()
      extents.byteCount = 5120
      extents.replace(0..<10, with: .unwritten)
      try store.setExtents(extents, of: .one, changed: 0..<10)
      try store.clone(.one, to: .two)
      #expect(try store.extents(of: .two).runs.runs == [Run(0..<10, .unwritten)])
      #expect(try ExtentStoreConformance.countFree(store) == 50)
    },

    Promise("shared blocks are free once every reference is given up, in any order") { kind in
      for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let store = try kind.make(50)
        let inodes: [Inode] = [.one, .two, .three]
        let blocks = try makeFile(.one, blockCount: 6, in: store)
        try store.clone(.one, to: .two)
        try store.clone(.one, to: .three)
        for (step, file) in order.enumerated() {
          #expect(try counts(of: blocks, in: store) == Array(repeating: UInt64(3 - step), count: 6))
          try free(inodes[file], in: store)
        }
        #expect(try counts(of: blocks, in: store) == Array(repeating: 0, count: 6))
        #expect(try ExtentStoreConformance.countFree(store) == 50)
      }
    },

    Promise("giving up more references than there are is refused and changes nothing") { kind in
      let store = try kind.make(50)
      let blocks = try makeFile(.one, blockCount: 6, in: store)
      try store.clone(.one, to: .two)
      let middle = PhysicalRun(block: blocks[2], count: 1)
      try store.free(middle)
      #expect(try counts(of: blocks, in: store) == [2, 2, 1, 2, 2, 2])
      try store.free(middle)
      expectError(.notAllocated) { try store.free(middle) }
      // Nor a run of which one block is free, whether the others are shared or not.
      for block in [blocks[1], blocks[3]] where abs(Int(block) - Int(blocks[2])) == 1 {
        let run = PhysicalRun(block: min(block, blocks[2]), count: 2)
        expectError(.notAllocated) { try store.free(run) }
      }
      #expect(try counts(of: blocks, in: store) == [2, 2, 0, 2, 2, 2])
    },

    Promise("a run is freed where it has one reference and counted down where it has more") { kind in
      let store = try kind.make(50)
      let run = try store.allocate(6, near: nil)
      try #require(run.count == 6)
      // Two files map blocks 2 and 3 of the run, the rest one.
      var extents = ExtentMap()
      extents.byteCount = 1024
      extents.replace(0..<2, with: .physical(run.block + 2))
      try store.setExtents(extents, of: .one, changed: 0..<2)
      try store.clone(.one, to: .two)
      try store.free(run)
      #expect(try counts(of: Array(run.blocks), in: store) == [0, 0, 1, 1, 0, 0])
      try store.free(PhysicalRun(block: run.block + 2, count: 2))
      #expect(try ExtentStoreConformance.countFree(store) == 50)
    },

    Promise("broken sharing leaves both files their bytes and each block one reference") { kind in
      let store = try kind.make(50)
      let size = store.blockSize.byteCount
      let blocks = try makeFile(.one, blockCount: 10, in: store)
      try store.clone(.one, to: .two)
      let after = try store.breakSharing(of: .two, in: 3..<7)
      #expect(try after.runs.runs == store.extents(of: .two).runs.runs)
      #expect(after.byteCount == 5120)
      #expect(try counts(of: blocks, in: store) == [2, 2, 2, 1, 1, 1, 1, 2, 2, 2])
      for place in 0..<10 as Range<UInt64> {
        let own = try #require(after.runs.run(at: place)).value(at: place)
        let block = try #require(own.physicalBlock)
        #expect((block == blocks[Int(place)]) == !(3..<7).contains(place))
        #expect(try store.referenceCount(of: block) == ((3..<7).contains(place) ? 1 : 2))
        #expect(try store.bytes(from: block, count: size) == pattern(size, seed: Int(blocks[Int(place)])))
      }
      try free(.one, in: store)
      try free(.two, in: store)
      #expect(try ExtentStoreConformance.countFree(store) == 50)
    },

    Promise("breaking sharing where there is none changes nothing") { kind in
      let store = try kind.make(50)
      _ = try makeFile(.one, blockCount: 10, in: store)
      try store.clone(.one, to: .two)
      _ = try store.breakSharing(of: .two, in: 0..<100)
      let before = try store.extents(of: .two).runs.runs
      for inode in [Inode.one, .two, .three] { _ = try store.breakSharing(of: inode, in: 0..<1 << 50) }
      #expect(try store.extents(of: .two).runs.runs == before)
      #expect(try ExtentStoreConformance.countFree(store) == 30)
    },

    Promise("sharing that cannot be broken for lack of space stays") { kind in
      let store = try kind.make(50)
      let blocks = try makeFile(.one, blockCount: 30, in: store)
      try store.clone(.one, to: .two)
      let before = try store.extents(of: .two).runs.runs
      expectError(.outOfSpace) { _ = try store.breakSharing(of: .two, in: 0..<30) }
      #expect(try store.extents(of: .two).runs.runs == before)
      #expect(try counts(of: blocks, in: store) == Array(repeating: 2, count: 30))
      #expect(try ExtentStoreConformance.countFree(store) == 20)
    },

    Promise("random clones, releases and breaks agree with counting") { kind in
      try withSeededGenerator { generator in try randomSharing(kind.make(120), &generator) }
    },
  ]

  /// Every mapping is one reference: after each step the counts are those of a plain count over all mappings.
  private static func randomSharing(_ store: any COWStore, _ generator: inout SeededGenerator) throws {
    var inodes: [Inode] = []
    for step in 0..<1_500 {
      let inode = Inode(rawValue: UInt64(1000 + step))
      switch generator.number(below: 5) {
      case 0 where inodes.count < 5:
        if try ExtentStoreConformance.countFree(store) >= 8 { try makeFile(inode, blockCount: 8, in: store) }
        inodes.append(inode)
      case 1 where inodes.count < 5 && !inodes.isEmpty:
        try store.clone(inodes[generator.number(below: inodes.count)], to: inode)
        inodes.append(inode)
      case 2 where inodes.count > 3:
        try free(inodes.remove(at: generator.number(below: inodes.count)), in: store)
      case 3 where !inodes.isEmpty:
        // A part becomes a hole.
        let owner = inodes[generator.number(below: inodes.count)]
        let part = generator.range(below: 8, longest: 3)
        var extents = try store.extents(of: owner)
        let given = physicalRuns(of: extents, in: part)
        extents.replace(part, with: nil)
        try store.setExtents(extents, of: owner, changed: part)
        for run in given { try store.free(run) }
      case _ where !inodes.isEmpty:
        let owner = inodes[generator.number(below: inodes.count)]
        let part = generator.range(below: 8, longest: 8)
        _ = try store.breakSharing(of: owner, in: part)
        for run in try physicalRuns(of: store.extents(of: owner), in: part) {
          try check(counts(of: Array(run.blocks), in: store).allSatisfy { $0 == 1 }, "\(run) is still shared")
        }
      default: break
      }
      var expected: [UInt64: UInt64] = [:]
      for inode in inodes {
        for run in try physicalRuns(of: store.extents(of: inode), in: 0..<8) {
          for block in run.blocks { expected[block, default: 0] += 1 }
        }
      }
      for block in 0...121 as ClosedRange<UInt64> {
        let (found, expected) = (try store.referenceCount(of: block), expected[block] ?? 0)
        try check(found == expected, "step \(step): block \(block) has \(found) references, not \(expected)")
      }
    }
    for inode in inodes { try free(inode, in: store) }
    try check(ExtentStoreConformance.countFree(store) == 120, "blocks are lost")
  }

  /// Makes a file of `blockCount` blocks, each with a pattern after its number, and returns them.
  @discardableResult
  private static func makeFile(_ inode: Inode, blockCount: UInt64, in store: any COWStore) throws -> [UInt64] {
    var extents = ExtentMap()
    extents.byteCount = blockCount * UInt64(store.blockSize.byteCount)
    var place: UInt64 = 0
    while place < blockCount {
      let run = try store.allocate(blockCount - place, near: nil)
      extents.replace(place..<place + run.count, with: .physical(run.block))
      for block in run.blocks { try store.write(pattern(store.blockSize.byteCount, seed: Int(block)), to: block) }
      place += run.count
    }
    try store.setExtents(extents, of: inode, changed: 0..<blockCount)
    return physicalRuns(of: extents, in: 0..<blockCount).flatMap { Array($0.blocks) }
  }

  /// Takes a file away with its references.
  private static func free(_ inode: Inode, in store: any COWStore) throws {
    let extents = try store.extents(of: inode)
    try store.removeExtents(of: inode)
    for run in physicalRuns(of: extents, in: 0..<1 << 50) { try store.free(run) }
  }

  private static func physicalRuns(of extents: ExtentMap, in places: Range<UInt64>) -> [PhysicalRun] {
    var runs: [PhysicalRun] = []
    extents.forEachPiece(in: places) { piece, target in
      if let block = target?.physicalBlock {
        runs.append(PhysicalRun(block: block, count: piece.upperBound - piece.lowerBound))
      }
      return true
    }
    return runs
  }

  private static func counts(of blocks: [UInt64], in store: any COWStore) throws -> [UInt64] {
    try blocks.map { try store.referenceCount(of: $0) }
  }
}

extension Run<BlockLocation> {
  /// What one of the run's positions maps to.
  fileprivate func value(at position: UInt64) -> BlockLocation { value.advanced(by: position - positions.lowerBound) }
}
