import Bytes
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct AllocationWindowTests {
  @Test func `blocks taken one after the other lie together`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let runs = [AllocationWindow(store.space), AllocationWindow(store.space)]
    var taken: [[UInt64]] = [[], []]
    for _ in 0..<50 { for index in 0..<2 { taken[index].append(try runs[index].take(1).block) } }
    for blocks in taken { #expect(blocks == Array(blocks[0]..<blocks[0] + 50)) }
  }

  @Test func `runs grow, and large requests are served whole`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8 * 8192, limit: 192 + 80 * 8192)
    let run = AllocationWindow(store.space)
    #expect(try run.take(1000).count == 1000)
    var left = store.space.freeBlockCount
    var lengths: [UInt64] = []
    for _ in 0..<4000 {
      #expect(try run.take(1).count == 1)
      if store.space.freeBlockCount != left { lengths.append(left &- store.space.freeBlockCount) }
      left = store.space.freeBlockCount
    }
    #expect(lengths.first == 256)
    #expect(lengths.allSatisfy { $0 <= 4096 })
  }

  @Test func `the rest goes back and every block is taken once`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 300))
    let run = AllocationWindow(store.space)
    var taken: Set<UInt64> = try Set(run.take(1).blocks)
    try run.returnRest()
    try run.returnRest()
    #expect(store.space.freeBlockCount == 299)
    while errorCode({ taken.formUnion(try run.take(7).blocks) }) == nil {}
    #expect(taken.count == 300)
    try run.returnRest()
    #expect(store.space.freeBlockCount == 0)
  }

  @Test(arguments: [(1 as UInt64, true), (300, false)])
  func `a run is written beforehand where syncs come often`(blocksPerSync: UInt64, isWritten: Bool) throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let noise = [UInt8](repeating: 0xA5, count: 8192 * SpaceFixture.blockSize)
    try noise.withUnsafeBytes {
      try store.device.write($0, at: 192 * UInt64(SpaceFixture.blockSize))
    }
    let taken = Locked<UInt64>(0)
    let run = AllocationWindow(store.space) { taken.withLock { $0 / blocksPerSync } }
    var zeroCount = 0
    for _ in 0..<2000 {
      let block = try run.take(1).block
      taken.withLock { $0 += 1 }
      var bytes = [UInt8](repeating: 1, count: SpaceFixture.blockSize)
      try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: block * UInt64(SpaceFixture.blockSize)) }
      if bytes.allSatisfy({ $0 == 0 }) { zeroCount += 1 }
    }
    // Nothing is known yet when the first run is fetched, which is a 64th of what is free.
    #expect(zeroCount == (isWritten ? 2000 - 8126 / 64 : 0))
  }

  @Test func `many threads take, return and checkpoint, and no block is given twice`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 2000), limit: 192 + 4 * 8192)
    let taken = Locked<[UInt64]>([])
    let runs = (0..<2).map { _ in AllocationWindow(store.space) }
    try inThreads(5) { index in
      var mine: [PhysicalRun] = []
      if index == 4 {
        for _ in 0..<50 {
          let node = try store.space.allocate(upTo: 1, purpose: .metadata)
          try store.space.commit(node)
          mine.append(node)
          try store.checkpoint()
          if let trim = store.space.nextTrim(.small) { try store.space.didTrim(trim) }
        }
      } else {
        for step in 0..<2000 {
          mine.append(try runs[index % 2].take(1 + UInt64(step % 3)))
          if step % 5 == 4 { try store.space.free(mine.remove(at: mine.count / 2)) }
          if step % 100 == 99 { try runs[index % 2].returnRest() }
        }
      }
      let blocks = mine.flatMap(\.blocks)
      taken.withLock { $0 += blocks }
    }
    for run in runs { try run.returnRest() }
    let blocks = taken.withLock { $0 }
    #expect(Set(blocks).count == blocks.count)
    let usable = store.geometry.usableBlockCount(inDeviceOf: store.space.blockCount)
    #expect(store.space.freeBlockCount == usable - UInt64(blocks.count))
  }
}
