import BlockStores
import Bytes
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct SpaceOpenRunTests {
  @Test func `blocks taken one after the other lie together`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let runs = [OpenRun(store.space), OpenRun(store.space)]
    var taken: [[UInt64]] = [[], []]
    for _ in 0..<50 { for index in 0..<2 { taken[index].append(try runs[index].take(1).block) } }
    for blocks in taken { #expect(blocks == Array(blocks[0]..<blocks[0] + 50)) }
  }

  @Test func `runs grow, and large requests are served whole`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8 * 8192, limit: 192 + 80 * 8192)
    let run = OpenRun(store.space)
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
    let run = OpenRun(store.space)
    var taken: Set<UInt64> = try Set(run.take(1).blocks)
    try run.returnRest()
    try run.returnRest()
    #expect(store.space.freeBlockCount == 299)
    while errorCode({ taken.formUnion(try run.take(7).blocks) }) == nil {}
    #expect(taken.count == 300)
    try run.returnRest()
    #expect(store.space.freeBlockCount == 0)
  }

  @Test func `many threads take, return and checkpoint, and no block is given twice`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 2000), limit: 192 + 4 * 8192)
    let taken = Locked<[UInt64]>([])
    let runs = (0..<2).map { _ in OpenRun(store.space) }
    try inThreads(5) { index in
      var mine: [PhysicalRun] = []
      if index == 4 {
        for _ in 0..<50 {
          let node = try store.space.allocate(upTo: 1, purpose: .metadata)
          try store.space.commit(node)
          mine.append(node)
          try store.checkpoint()
          if let trim = store.space.nextTrim() { try store.space.didTrim(trim) }
        }
      } else {
        for step in 0..<2000 {
          mine.append(try runs[index % 2].take(1 + UInt64(step % 3)))
          if step % 5 == 4 { try store.space.reuse(mine.remove(at: mine.count / 2)) }
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
