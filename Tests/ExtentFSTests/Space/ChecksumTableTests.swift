import Atomics
import Bytes
import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct ChecksumTableTests {
  private func store() throws -> SpaceFixture { try SpaceFixture(blockCount: 192 + 3 * 8192) }

  @Test func `what was set is found, in memory and after a checkpoint`() throws {
    let store = try store()
    let run = try store.space.allocate(upTo: 700, purpose: .data)
    let values = (0..<700).map { UInt32($0) * 3 + 1 }
    values.withUnsafeBufferPointer { store.checksums.set(run, $0) }
    func check(_ table: ChecksumTable) throws {
      var found = [UInt32](repeating: 0, count: 700)
      try found.withUnsafeMutableBufferPointer { try table.getChecksums(of: run, into: $0) }
      #expect(found == values)
      #expect(try table.checksum(of: run.block + 300) == values[300])
    }
    try check(store.checksums)
    try store.space.commit(run)
    try store.checkpoint()
    try check(store.checksums)
    try check(store.reopened().checksums)
  }

  @Test func `a checksum is kept where a block was given up and is not free yet`() throws {
    let store = try store()
    let run = try store.space.allocate(upTo: 4, purpose: .data)
    [11, 12, 13, 14].withUnsafeBufferPointer { store.checksums.set(run, $0) }
    let (old, new) = (PhysicalRun(block: run.block, count: 2), PhysicalRun(block: run.block + 2, count: 2))
    try store.space.commit(old)
    try store.checkpoint()
    // A reader may still come to the old blocks, also when their page has left memory.
    try store.space.deferFree(old)
    try store.space.commit(new)
    try store.checkpoint()
    let again = try store.reopened()
    for index in 0..<4 as Range<UInt64> {
      #expect(try again.checksums.checksum(of: run.block + index) == 11 + UInt32(index))
    }
  }

  @Test func `blocks that were never set have checksum zero`() throws {
    let store = try store()
    let run = try store.space.allocate(upTo: 2, purpose: .data)
    #expect(try store.checksums.checksum(of: run.block) == 0)
    store.checksums.set(run.block, 9)
    #expect(try store.checksums.checksum(of: run.block + 1) == 0)
    #expect(try store.checksums.checksum(of: run.block) == 9)
  }

  @Test func `numbers that are no blocks are refused and harm nothing`() throws {
    let store = try store()
    for block in [0, 191, 1 << 54, UInt64.max - 1, UInt64.max] {
      store.checksums.set(block, 1)
      [1, 2].withUnsafeBufferPointer { store.checksums.set(PhysicalRun(block: block, count: 2), $0) }
      #expect(errorCode { _ = try store.checksums.checksum(of: block) } == .damaged)
    }
    #expect(try store.checksums.checksum(of: 1 << 40) == 0)
  }

  @Test func `setting needs no page to be read, and a damaged one is found when it is`() throws {
    let store = try store()
    let run = try store.space.allocate(upTo: 4, purpose: .data)
    store.checksums.set(run.block, 1)
    try store.space.commit(run)
    try store.checkpoint()
    let again = try store.reopened()
    let slot = store.durable.withLock { $0.tree[0].map { Int($0.checksumSlots & 1) } } ?? 0
    try [UInt8(1)].withUnsafeBytes {
      try store.device.write($0, at: store.geometry.checksumBlock(ofGroup: 0, index: 0, slot: slot) * 1024 + 9)
    }
    again.checksums.set(run.block + 5, 55)
    #expect(try again.checksums.checksum(of: run.block + 5) == 55)
    #expect(errorCode { _ = try again.checksums.checksum(of: run.block) } == .damaged)
    #expect(try again.checksums.checksum(of: run.block + 5) == 55)
  }

  @Test func `checksums of blocks that are not committed are not forgotten, and those of free ones are`() throws {
    let store = try store()
    let one = try store.space.allocate(upTo: 1, purpose: .data)
    let other = try store.space.allocate(upTo: 1, purpose: .data)
    store.checksums.set(one.block, 1)
    store.checksums.set(other.block, 2)
    try store.space.commit(one)
    try store.checkpoint()
    #expect(try store.reopened().checksums.checksum(of: one.block) == 1)
    #expect(try store.checksums.checksum(of: other.block) == 2)
    try store.space.commit(other)
    try store.checkpoint()
    #expect(try store.reopened().checksums.checksum(of: one.block) == 1)
    #expect(try store.reopened().checksums.checksum(of: other.block) == 2)
    try store.space.deferFree(one)
    try store.checkpoint()
    try store.space.free(one)
    store.checksums.set(other.block, 3)
    try store.checkpoint()
    #expect(try store.reopened().checksums.checksum(of: one.block) == 0)
    #expect(try store.reopened().checksums.checksum(of: other.block) == 3)
  }

  @Test func `random use agrees with an array, over checkpoints, failures and crashes`() throws {
    try withSeededGenerator { generator in
      var store = try store()
      var runs: [PhysicalRun] = []
      while errorCode({ runs.append(try store.space.allocate(upTo: 1 << 20, purpose: .data)) }) == nil {}
      // Every other block is in a tree for good; the others come and go.
      var values: [UInt64: UInt32] = [:]
      var durable: [UInt64: UInt32] = [:]
      var committed: Set<UInt64> = []
      func block(_ generator: inout SeededGenerator) -> UInt64 {
        let run = runs[generator.number(below: runs.count)]
        return run.block + generator.number(below: run.count)
      }
      for _ in 0..<5_000 {
        switch generator.number(below: 100) {
        case 0..<50:
          let block = block(&generator)
          if committed.contains(block) { continue }
          values[block] = UInt32(truncatingIfNeeded: generator.next())
          store.checksums.set(block, values[block, default: 0])
        case 50..<98:
          let block = generator.oneIn(2) ? values.keys.randomElement(using: &generator) : nil
          guard let block else { continue }
          let found = try store.checksums.checksum(of: block)
          try check(found == values[block], "block \(block) has \(found), not \(values[block, default: 0])")
        case 98:
          let before = committed
          for block in values.keys where !committed.contains(block) && generator.oneIn(2) {
            try store.space.commit(PhysicalRun(block: block, count: 1))
            committed.insert(block)
          }
          if generator.oneIn(3) {
            try store.writeCheckpoint()
            store.failCheckpoint()
            committed = before
          } else {
            try store.checkpoint()
            durable = values.filter { committed.contains($0.key) }
          }
        default:
          guard generator.oneIn(5) else { continue }
          store = try store.reopened()
          values = durable
          for run in runs {
            for block in run.blocks where !committed.contains(block) {
              try store.space.claim(PhysicalRun(block: block, count: 1))
            }
          }
        }
      }
    }
  }

  @Test func `checksums set and read beside checkpoints are never lost`() throws {
    let store = try store()
    let threads = 3
    let isDone = ManagedAtomic(false)
    let finished = ManagedAtomic(0)
    let toCommit = Locked<[PhysicalRun]>([])
    @Sendable func value(_ block: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: block &* 2_654_435_761) | 1 }
    let all = Locked<[UInt64]>([])
    try inThreads(threads + 1) { index in
      if index == threads {
        while !isDone.load(ordering: .acquiring) {
          for run in toCommit.withLock({ runs in
            defer { runs = [] }
            return runs
          }) { try store.space.commit(run) }
          try store.checkpoint()
        }
        return
      }
      defer {
        if finished.wrappingIncrementThenLoad(ordering: .acquiringAndReleasing) == threads {
          isDone.store(true, ordering: .releasing)
        }
      }
      var mine: [UInt64] = []
      for step in 0..<1500 {
        let near = 258 + UInt64(step * 7919 % 3) * 8192 + UInt64(step * 31 % 8000)
        let run = try store.space.allocate(upTo: 2, near: near, purpose: .data)
        for block in run.blocks { store.checksums.set(block, value(block)) }
        mine += run.blocks
        toCommit.withLock { $0.append(run) }
        for _ in 0..<2 {
          let block = mine[(step * 7 + 3) % mine.count]
          let found = try store.checksums.checksum(of: block)
          try check(found == value(block), "block \(block) has \(found)")
        }
      }
      all.withLock { $0 += mine }
    }
    for run in toCommit.withLock({ $0 }) { try store.space.commit(run) }
    try store.checkpoint()
    let again = try store.reopened()
    for block in all.withLock({ $0 }) {
      #expect(try store.checksums.checksum(of: block) == value(block))
      #expect(try again.checksums.checksum(of: block) == value(block))
    }
  }
}
