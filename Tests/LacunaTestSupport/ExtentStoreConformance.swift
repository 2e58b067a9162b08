package import BlockStores
import Extents
import Testing

/// What every `ExtentStore` promises.
package enum ExtentStoreConformance {
  package typealias Kind = StoreKind<any ExtentStore>

  package static let promises: [Promise<Kind>] = [
    Promise("every block is handed out once, never more than asked at a time") { kind in
      let store = try kind.make(50)
      var blocks: Set<UInt64> = []
      for wanted in [1, 5, 2, 9, 1, 100, 100, 100, 100, 100] as [UInt64] where blocks.count < 50 {
        let run = try store.allocate(wanted, near: nil)
        #expect((1...wanted).contains(run.count))
        for block in run.blocks { #expect(blocks.insert(block).inserted) }
      }
      for run in try allocateAll(store) { blocks.formUnion(run.blocks) }
      #expect(blocks.count == 50)
      expectError(.outOfSpace) { _ = try store.allocate(1, near: nil) }
      expectError(.outOfSpace) { _ = try store.allocate(7, near: blocks.first) }
    },

    Promise("blocks of one reference are not shared") { kind in
      let store = try kind.make(50)
      for run in try allocateAll(store) { #expect(!store.isShared(run)) }
    },

    Promise("no neighbour asked for is too strange") { kind in
      for near in [0, 1, 50, 51, 1 << 54, UInt64(Int64.max), UInt64.max - 1, UInt64.max] {
        let store = try kind.make(50)
        let run = try store.allocate(3, near: near)
        try store.free(run)
        #expect(try countFree(store) == 50)
      }
    },

    Promise("freed blocks can be allocated again") { kind in
      let store = try kind.make(50)
      for run in try allocateAll(store) {
        // One by one from the end.
        for block in run.blocks.reversed() { try store.free(PhysicalRun(block: block, count: 1)) }
      }
      #expect(try countFree(store) == 50)
    },

    Promise("freeing what is free, whole or in part, is refused and changes nothing") { kind in
      let store = try kind.make(50)
      let runs = try allocateAll(store)
      let blocks = runs.flatMap { Array($0.blocks) }.sorted()
      // A free block in the midst of three.
      let middle = try #require(blocks.indices.dropFirst().dropLast().first { blocks[$0 - 1] + 2 == blocks[$0 + 1] })
      try store.free(PhysicalRun(block: blocks[middle], count: 1))
      for (back, count) in [(0, 1), (1, 2), (0, 2), (1, 3)] as [(UInt64, UInt64)] {
        expectError(.notAllocated) { try store.free(PhysicalRun(block: blocks[middle] - back, count: count)) }
      }
      #expect(try countFree(store) == 1)
    },

    Promise("freeing what the store does not have is refused") { kind in
      let store = try kind.make(50)
      let last = try allocateAll(store).map(\.blocks.upperBound).max() ?? 0
      for run in [
        PhysicalRun(block: last, count: 1), PhysicalRun(block: last - 1, count: 2),
        PhysicalRun(block: last, count: 1 << 54),
        PhysicalRun(block: 1 << 54, count: 1), PhysicalRun(block: .max, count: 1),
        PhysicalRun(block: .max - 1, count: 9),
        PhysicalRun(block: 1, count: .max), PhysicalRun(block: 1, count: 0),
      ] {
        expectError(.notAllocated) { try store.free(run) }
      }
      #expect(try countFree(store) == 0)
    },

    Promise("random allocations and releases agree with a set of blocks") { kind in
      try withSeededGenerator { generator in
        let store = try kind.make(50)
        var allocated: Set<UInt64> = []
        for _ in 0..<3_000 {
          if generator.oneIn(2), let start = allocated.sorted().randomElement(using: &generator) {
            var run = PhysicalRun(block: start, count: 1)
            while generator.oneIn(2), allocated.contains(run.blocks.upperBound) { run.count += 1 }
            try store.free(run)
            allocated.subtract(run.blocks)
          } else if allocated.count < 50 {
            let wanted = 1 + generator.number(below: UInt64(6))
            let run = try store.allocate(wanted, near: generator.oneIn(2) ? generator.number(below: UInt64(60)) : nil)
            try check((1...wanted).contains(run.count), "\(run.count) blocks, not 1 to \(wanted)")
            try check(allocated.isDisjoint(with: run.blocks), "\(run) was allocated already")
            allocated.formUnion(run.blocks)
          }
        }
        try check(countFree(store) == UInt64(50 - allocated.count), "blocks are lost")
      }
    },

    Promise("bytes go where they belong in a run of blocks") { kind in
      let store = try kind.make(50)
      let size = store.blockSize.byteCount
      for run in try allocateAll(store) where run.count > 2 {
        var bytes = pattern(Int(run.count) * size, seed: 1)
        try store.write(bytes, to: run.block)
        for part in [
          0..<1, size - 1..<size + 1, size..<2 * size, 7..<3 * size - 5, bytes.count - 1..<bytes.count, 9..<9,
        ] {
          let new = pattern(part.count, seed: part.lowerBound + 5)
          // From the block of the first byte, and from the run's first block.
          try store.write(new, to: run.block + UInt64(part.lowerBound / size), skip: part.lowerBound % size)
          bytes.replaceSubrange(part, with: new)
          #expect(try store.bytes(from: run.block, skip: part.lowerBound, count: part.count) == new)
          #expect(try store.bytes(from: run.block, count: bytes.count) == bytes)
        }
      }
    },

    Promise("each block keeps its own bytes") { kind in
      let store = try kind.make(50)
      let size = store.blockSize.byteCount
      let blocks = try allocateAll(store).flatMap { Array($0.blocks) }
      for block in blocks { try store.write(pattern(size, seed: Int(block)), to: block) }
      for block in blocks[..<25] { try store.free(PhysicalRun(block: block, count: 1)) }
      for block in blocks[25...] {
        #expect(try store.bytes(from: block, count: size) == pattern(size, seed: Int(block)))
      }
    },

    Promise("a mapping is what was set last, each inode's own") { kind in
      let store = try kind.make(50)
      #expect(try store.extents(of: .one).byteCount == 0)
      let run = try store.allocate(2, near: nil)
      var extents = ExtentMap()
      extents.byteCount = 512 * 100 - 1
      extents.replace(7..<8, with: .physical(run.block))
      extents.replace(20..<100, with: .unwritten)
      try store.setExtents(extents, of: .one, changed: 7..<100)
      let kept = extents.runs.runs
      // The store's mapping does not follow this one.
      extents.replace(0..<30, with: nil)
      #expect(try store.extents(of: .one).runs.runs == kept)
      #expect(try store.extents(of: .one).byteCount == 512 * 100 - 1)
      #expect(try store.extents(of: .two).runs.isEmpty)
      try store.setExtents(extents, of: .two, changed: 0..<100)
      try store.removeExtents(of: .one)
      #expect(try store.extents(of: .one).byteCount == 0)
      #expect(try store.extents(of: .one).runs.isEmpty)
      #expect(try store.extents(of: .two).runs.runs == [Run(30..<100, .unwritten)])
      try store.removeExtents(of: .one)
      try store.sync()
    },
  ]

  /// Takes what there is.
  static func allocateAll(_ store: any ExtentStore) throws -> [PhysicalRun] {
    var runs: [PhysicalRun] = []
    while true {
      do {
        runs.append(try store.allocate(1 << 20, near: nil))
      } catch {
        guard error.code == .outOfSpace else { throw error }
        return runs
      }
    }
  }

  /// How many blocks are free.
  static func countFree(_ store: any ExtentStore) throws -> UInt64 {
    let runs = try allocateAll(store)
    for run in runs { try store.free(run) }
    return runs.reduce(0) { $0 + $1.count }
  }
}
