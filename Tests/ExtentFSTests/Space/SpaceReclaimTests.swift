import Atomics
import Bytes
import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What the host holds of free blocks is found by asking the device, part by part.
@Suite struct `A search for storage of free blocks` {
  /// Writes to blocks, so that the device holds storage for them: pages of 4 KiB, which are four blocks.
  private func fill(_ store: SpaceFixture, _ blocks: Range<UInt64>) throws {
    let bytes = [UInt8](repeating: 7, count: Int(blocks.length) * SpaceFixture.blockSize)
    try bytes.withUnsafeBytes {
      try store.device.write($0, at: blocks.lowerBound * UInt64(SpaceFixture.blockSize))
    }
  }

  /// All that is found, each part's runs given back before the next part is looked at.
  private func reclaim(_ space: SpaceMap, isUnknown: Bool = false) throws -> [Range<UInt64>] {
    var found: [Range<UInt64>] = []
    while let part = space.nextReclaimPart() {
      try space.markAllocated(in: part, isUnknown: isUnknown)
      while let run = space.nextTrim(.small) {
        found.append(run.blocks)
        let shift = UInt64(SpaceFixture.blockSize)
        try space.device.discard(run.blocks.lowerBound * shift..<run.blocks.upperBound * shift)
        try space.didTrim(run)
      }
      space.didReclaim(part)
    }
    return found
  }

  @Test func `finds whole pieces that are free and hold some, and nothing that is in use`() throws {
    let store = try SpaceFixture(blockCount: 192 + 3 * 8192)
    let run = try store.space.allocate(upTo: 8000, purpose: .data)
    // In use by trees: all between 2000 and 3000, and one block of the piece from 4096 on.
    try store.space.commit(PhysicalRun(block: 2000, count: 1000))
    try store.space.commit(PhysicalRun(block: 4100, count: 1))
    try store.checkpoint()
    #expect(run.block == 258)
    try fill(store, 1000..<3100)
    try fill(store, 4000..<4200)
    // One page within the second group, and all fixed places of the third.
    let second = store.geometry.firstBlock(ofGroup: 1)
    try fill(store, second + 4000..<second + 4004)
    let third = store.geometry.firstBlock(ofGroup: 2)
    try fill(store, third..<third + 66)
    let again = try store.reopened()
    // What the journal names is in use, though no tree has it yet.
    try again.space.claim(PhysicalRun(block: 1088, count: 64))
    let free = again.space.freeBlockCount
    let found = try reclaim(again.space)
    #expect(
      found == [
        960..<1088, 1152..<1984, 3008..<3136, 3968..<4096, 4160..<4224,
        (second + 4000) / 64 * 64..<(second + 4000) / 64 * 64 + 64,
      ])
    #expect(again.space.freeBlockCount == free)
    // Once.
    #expect(again.space.nextReclaimPart() == nil)
    #expect(try reclaim(try store.reopened().space).contains(1088..<1152))
    #expect(try reclaim(try store.reopened().space) == [])
  }

  @Test func `takes all that is free for what holds some where the device cannot tell`() throws {
    let store = try SpaceFixture(blockCount: 192 + 2 * 8192)
    let run = try store.space.allocate(upTo: 1000, purpose: .data)
    try store.space.commit(run)
    try store.checkpoint()
    let found = try reclaim(try store.reopened().space, isUnknown: true)
    // From the first whole piece behind block 1258 to the end of the group; and the second group behind its fixed places.
    #expect(found.reduce(0) { $0 + $1.length } == (8384 - 1280) + (16576 - 8512))
    #expect(found.first?.lowerBound == 1280 && found.last?.upperBound == 16576)
  }

  @Test func `leaves no group in memory that it alone has read`() throws {
    let store = try SpaceFixture(blockCount: 192 + 40 * 8192)
    let committed = try store.space.allocate(upTo: 8000, purpose: .data)
    try store.space.commit(committed)
    try store.checkpoint()
    let groups: [UInt64] = [3, 17, 39]
    for group in groups {
      let start = store.geometry.firstBlock(ofGroup: group) + 1000
      try fill(store, start..<start + 2000)
    }
    let again = try store.reopened()
    // Allocation has come to the first one.
    let taken = try again.space.allocate(upTo: 1, purpose: .data)
    #expect(try reclaim(again.space).count == groups.count)
    #expect((0..<40 as Range<UInt64>).filter { again.space.bitmaps(ofGroup: $0) != nil } == [0])
    try again.space.cancelAllocation(taken)
    #expect(again.space.freeBlockCount == again.geometry.usableBlockCount(inDeviceOf: again.space.blockCount) - 8000)
  }

  @Test func `goes on where the device has grown`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192 + 100, limit: 192 + 5 * 8192)
    #expect(try reclaim(store.space) == [])
    #expect(store.space.nextReclaimPart() == nil)
    var runs: [PhysicalRun] = []
    while store.space.blockCount < 192 + 4 * 8192 {
      let run = try store.space.allocate(upTo: 1000, purpose: .data)
      try fill(store, run.blocks)
      runs.append(run)
    }
    // Not by way of marks: these are gone with the process.
    for run in runs { try store.space.didTrim(run) }
    let found = Set<UInt64>(try reclaim(store.space).flatMap { Array($0) })
    let grown: [UInt64] = runs.flatMap { Array($0.blocks) }.filter { $0 >= 192 + 8192 + 100 }
    #expect(grown.count > 10_000)
    // All but parts of pieces at the edges of runs and groups.
    #expect(grown.count { found.contains($0) } > grown.count - 64 * 10)
  }

  @Test func `is needless for what was allocated in vain, which is marked when it is given back`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let freed = try store.space.allocate(upTo: 4096, purpose: .data)
    try store.space.free(freed)
    let run = AllocationWindow(store.space)
    _ = try run.take(1)
    // While the run is in use, its marks are found to be out of date.
    var offered: UInt64 = 0
    while let trim = store.space.nextTrim(.small) { offered += trim.count }
    #expect(offered < freed.count && offered > 0)
    try run.returnRest()
    #expect(store.space.nextTrim(.small) != nil)
  }

  @Test func `disturbs nobody who allocates, commits and frees meanwhile`() throws {
    let groupCount: UInt64 = 24
    let store = try SpaceFixture(blockCount: 192 + groupCount * 8192)
    for group in 0..<groupCount {
      let start = store.geometry.firstBlock(ofGroup: group)
      try fill(store, start + 66..<start + 8192)
    }
    let space = store.space
    let isOver = ManagedAtomic(false)
    let kept = Locked<[UInt64]>([])
    let seed = try withSeededGenerator { $0.next() }
    try inThreads(4) { thread in
      defer { isOver.store(true, ordering: .relaxed) }
      var generator = SeededGenerator(seed: seed &+ UInt64(thread))
      switch thread {
      case 0, 1:
        while !isOver.load(ordering: .relaxed) {
          var position: UInt64 = 0
          while let part = space.reclaimPart(from: position) {
            try space.markAllocated(in: part, isUnknown: generator.oneIn(2))
            var runs: [PhysicalRun] = []
            while generator.number(below: 8) > 0, let run = space.nextTrim(.small, in: part) { runs.append(run) }
            for run in runs { try space.didTrim(run) }
            space.didReclaim(part)
            position = part.upperBound
          }
        }
      default:
        var mine: [PhysicalRun] = []
        for step in 0..<1500 {
          let near = 192 + generator.number(below: groupCount * 8192)
          let run = try space.allocate(
            upTo: 1 + generator.number(below: 40 as UInt64), near: near,
            purpose: generator.oneIn(3) ? .metadata : .data)
          mine.append(run)
          if step % 3 == 2 {
            let gone = mine.remove(at: generator.number(below: mine.count))
            if generator.oneIn(2) { try space.free(gone) } else { try space.cancelAllocation(gone) }
          }
          guard thread == 3, step % 50 == 49 else { continue }
          for run in mine.prefix(10) {
            try space.commit(run)
            kept.withLock { $0 += Array(run.blocks) }
          }
          mine.removeFirst(10)
          try store.checkpoint()
        }
        kept.withLock { $0 += mine.flatMap { Array($0.blocks) } }
      }
    }
    let blocks = kept.withLock { $0 }
    #expect(Set(blocks).count == blocks.count)
    let usable = store.geometry.usableBlockCount(inDeviceOf: space.blockCount)
    #expect(space.freeBlockCount == usable - UInt64(blocks.count))
    // What was committed is there after an opening, and nothing else.
    try store.checkpoint()
    #expect(try store.reopened().space.freeBlockCount == usable - space.usedBlockCount)
  }
}
