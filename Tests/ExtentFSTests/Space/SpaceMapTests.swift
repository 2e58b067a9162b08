import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct SpaceMapTests {
  @Test func `a new store has all blocks but those of bitmaps and checksums`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 100))
    #expect(store.firstBlock == 258)
    #expect(store.space.freeBlockCount == 100)
    #expect(try store.space.allocate(upTo: 1000, purpose: .data) == PhysicalRun(block: 258, count: 100))
    #expect(store.space.freeBlockCount == 0)
  }

  @Test func `a full store refuses and stays what it was`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 5))
    let run = try store.space.allocate(upTo: 5, purpose: .data)
    for purpose in [SpacePurpose.data, .metadata] {
      #expect(errorCode { _ = try store.space.allocate(upTo: 1, purpose: purpose) } == .outOfSpace)
    }
    #expect(store.space.freeBlockCount == 0)
    try store.space.cancelAllocation(PhysicalRun(block: run.block + 2, count: 1))
    #expect(try store.space.allocate(upTo: 7, purpose: .data) == PhysicalRun(block: run.block + 2, count: 1))
  }

  @Test(arguments: [true, false])
  func `fragments are left alone where the device can grow instead`(canGrow: Bool) throws {
    let blockCount = SpaceFixture.blockCount(forData: 4000)
    let store = try SpaceFixture(blockCount: blockCount, limit: canGrow ? 192 + 8192 : nil)
    let all = try store.space.allocate(upTo: 4000, purpose: .data)
    let holes = stride(from: all.block, to: all.block + 1000, by: 10).map { $0 }
    for block in holes { try store.space.free(PhysicalRun(block: block, count: 1)) }
    var taken: [UInt64] = []
    for _ in holes { taken.append(try store.space.allocate(upTo: 300, purpose: .data).block) }
    if canGrow {
      #expect(taken.prefix(10).allSatisfy { $0 >= all.block + all.count })
    } else {
      #expect(taken == holes)
    }
  }

  @Test func `data leaves the reserve to metadata`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 20))
    store.space.setReserve(6)
    var data: UInt64 = 0
    while errorCode({ data += try store.space.allocate(upTo: 3, purpose: .data).count }) == nil {}
    #expect(data == 14)
    for _ in 0..<6 { _ = try store.space.allocate(upTo: 1, purpose: .metadata) }
    #expect(errorCode { _ = try store.space.allocate(upTo: 1, purpose: .metadata) } == .outOfSpace)
  }

  @Test func `data gets what was kept together for nodes when nothing else is left`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 20))
    _ = try store.space.allocate(upTo: 1, purpose: .metadata)
    #expect(try store.space.allocate(upTo: 100, purpose: .data).count == 19)
    #expect(store.space.freeBlockCount == 0)
  }

  @Test func `nodes lie together and away from data`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 2000))
    var nodes: [UInt64] = []
    for _ in 0..<100 {
      nodes.append(try store.space.allocate(upTo: 1, purpose: .metadata).block)
      _ = try store.space.allocate(upTo: 1, purpose: .data)
    }
    #expect(nodes == Array(nodes[0]..<nodes[0] + 100))
  }

  @Test func `a block near another is given where it is free`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 100))
    let first = store.firstBlock
    #expect(try store.space.allocate(upTo: 1, purpose: .data).block == first)
    #expect(try store.space.allocate(upTo: 4, near: first + 50, purpose: .data).block == first + 50)
    #expect(
      try store.space.allocate(upTo: 90, near: first + 45, purpose: .data) == PhysicalRun(block: first + 45, count: 5))
    for near in [0, first - 1, first + 100, UInt64.max] {
      #expect(try store.space.allocate(upTo: 1, near: near, purpose: .data).count == 1)
    }
  }

  @Test func `a large request gets a large run and a small one the next`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 1000))
    let first = store.firstBlock
    _ = try store.space.allocate(upTo: 500, purpose: .data)
    for block in stride(from: first, to: first + 500, by: 10) {
      try store.space.cancelAllocation(PhysicalRun(block: block, count: 2))
    }
    #expect(try store.space.allocate(upTo: 64, purpose: .data) == PhysicalRun(block: first + 500, count: 64))
    _ = try store.space.allocate(upTo: 436, purpose: .data)
    #expect(try store.space.allocate(upTo: 64, purpose: .data).count == 2)
  }

  @Test func `released blocks are reused only when they are given back`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    let run = try store.space.allocate(upTo: 10, purpose: .data)
    try store.space.commit(run)
    try store.checkpoint()
    #expect(store.space.usedBlockCount == 10)
    try store.space.deferFree(run)
    #expect(errorCode { try store.space.free(run) } == .internalInconsistency)
    #expect(errorCode { _ = try store.space.allocate(upTo: 1, purpose: .metadata) } == .outOfSpace)
    try store.checkpoint()
    #expect(store.space.usedBlockCount == 0)
    #expect(errorCode { _ = try store.space.allocate(upTo: 1, purpose: .metadata) } == .outOfSpace)
    try store.space.free(run)
    #expect(try store.space.allocate(upTo: 10, purpose: .data) == run)
  }

  @Test func `what cannot be true of a block is refused`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    let space = store.space
    let run = try space.allocate(upTo: 4, purpose: .data)
    let free = PhysicalRun(block: run.block + 3, count: 2)
    #expect(errorCode { try space.commit(free) } == .internalInconsistency)
    #expect(errorCode { try space.deferFree(run) } == .damaged)
    #expect(errorCode { try space.free(free) } == .internalInconsistency)
    try space.commit(run)
    #expect(errorCode { try space.commit(run) } == .internalInconsistency)
    #expect(errorCode { try space.claim(run) } == .damaged)
    #expect(errorCode { try space.cancelAllocation(run) } == .internalInconsistency)
    for block in [0, 191, 192, 257, 268, 1 << 50, UInt64.max - 1, UInt64.max] {
      for count: UInt64 in [1, 2, 1 << 40, .max] {
        #expect(errorCode { try space.claim(PhysicalRun(block: block, count: count)) } == .damaged)
        #expect(errorCode { try space.deferFree(PhysicalRun(block: block, count: count)) } == .damaged)
      }
    }
  }

  @Test func `claimed blocks are not handed out, and claiming twice changes nothing`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    let claimed = PhysicalRun(block: store.firstBlock + 2, count: 3)
    try store.space.claim(claimed)
    try store.space.claim(PhysicalRun(block: claimed.block + 1, count: 4))
    #expect(store.space.freeBlockCount == 5)
    var rest: Set<UInt64> = []
    while errorCode({ rest.formUnion(try store.space.allocate(upTo: 2, purpose: .data).blocks) }) == nil {}
    #expect(rest == Set([0, 1, 7, 8, 9].map { store.firstBlock + $0 }))
  }

  @Test func `a run over two groups is committed and released in both`() throws {
    let group: UInt64 = 8192
    let store = try SpaceFixture(blockCount: 192 + 2 * group)
    #expect(store.space.groupCount == 2)
    // No run can cover the second group's metadata.
    let across = PhysicalRun(block: 192 + group - 2, count: 4)
    #expect(errorCode { try store.space.claim(across) } == .damaged)
    let first = try store.space.allocate(upTo: 1 << 20, purpose: .data)
    let second = try store.space.allocate(upTo: 1 << 20, purpose: .data)
    #expect([first.count, second.count] == [group - 66, group - 66])
    #expect(second.block == first.block + group)
    for run in [first, second] { try store.space.commit(run) }
    try store.checkpoint()
    let again = try store.reopened()
    #expect(again.space.freeBlockCount == 0)
    #expect(errorCode { _ = try again.space.allocate(upTo: 1, purpose: .data) } == .outOfSpace)
    try again.space.deferFree(second)
    try again.checkpoint()
    #expect(try again.reopened().space.allocate(upTo: 1, purpose: .data).block == second.block)
  }

  @Test func `a store grows step by step to its limit, and then it is full`() throws {
    let start = SpaceFixture.blockCount(forData: 100)
    let limit = start + 200_000
    let store = try SpaceFixture(blockCount: start, limit: limit)
    let expected = store.geometry.usableBlockCount(inDeviceOf: limit)
    #expect(store.space.availableBlockCount == expected)
    var taken: Set<UInt64> = []
    var steps: Set<UInt64> = []
    while errorCode({ taken.formUnion(try store.space.allocate(upTo: 1000, purpose: .data).blocks) }) == nil {
      steps.insert(store.space.blockCount)
    }
    #expect(UInt64(taken.count) == expected)
    // Steps of half of what the groups have, from 1 to 8 MiB, or of a sixteenth of all where that is more.
    var expectedSteps = [start]
    while let last = expectedSteps.last, last < limit {
      let half = min(max((last - store.geometry.headBlockCount) / 2, 1024), 8192)
      expectedSteps.append(min(limit, last + max(half, last / 16)))
    }
    #expect(steps.sorted() == expectedSteps)
    #expect(store.device.byteCount == limit * 1024)
    #expect(store.space.availableBlockCount == 0)
  }

  @Test func `a device that cannot grow as far as wanted grows as far as it can`() throws {
    let start = SpaceFixture.blockCount(forData: 1)
    let device = try SpaceFixture(blockCount: start, limit: start + 20_000)
    let store = try SpaceMap(
      device: device.device, geometry: device.geometry, blockCount: start, usedBlockCount: 0, growingUpTo: 1 << 30,
      records: GroupRecords { _ in nil })
    var count: UInt64 = 0
    while errorCode({ count += try store.allocate(upTo: 1 << 20, purpose: .data).count }) == nil {}
    // Steps of 1 MiB are the smallest that are tried.
    #expect(start + 20_000 - store.blockCount < 1024)
    #expect(count == device.geometry.usableBlockCount(inDeviceOf: store.blockCount))
  }

  @Test func `counts that cannot be are refused`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    func open(_ blockCount: UInt64, _ used: UInt64) -> ExtentFSError.Code? {
      errorCode {
        _ = try SpaceMap(
          device: store.device, geometry: store.geometry, blockCount: blockCount, usedBlockCount: used,
          growingUpTo: .max, records: GroupRecords { _ in nil })
      }
    }
    #expect(open(300, 42) == nil)
    #expect(open(300, 43) == .damaged)
    #expect(open(0, 1) == .damaged)
    #expect(open(.max, 0) == .damaged)
    #expect(open(0, 0) == nil)
  }
}
