import Bytes
import Devices
import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

@Suite struct SpaceCheckpointTests {
  private func bytes(of block: UInt64, _ store: SpaceFixture) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: SpaceFixture.blockSize)
    try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: block * 1024) }
    return bytes
  }

  private func damage(_ block: UInt64, byte: Int, _ store: SpaceFixture) throws {
    var bytes = try bytes(of: block, store)
    bytes[byte] ^= 4
    try bytes.withUnsafeBytes { try store.device.write($0, at: block * 1024) }
  }

  @Test func `bitmaps go to the slot that the last superblock does not use`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 100))
    var slots: [Int?] = []
    for _ in 0..<4 {
      let old = store.durable.withLock { $0.tree[0] }
      let kept = try old.map { try bytes(of: 192 + UInt64($0.bitmapSlot), store) }
      try store.space.commit(store.space.allocate(upTo: 3, purpose: .data))
      try store.checkpoint()
      if let old { #expect(try bytes(of: 192 + UInt64(old.bitmapSlot), store) == kept) }
      slots.append(store.durable.withLock { $0.tree[0]?.bitmapSlot })
    }
    #expect(slots == [1, 0, 1, 0])
  }

  @Test func `a checkpoint that changes nothing writes nothing`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 100))
    let run = try store.space.allocate(upTo: 3, purpose: .data)
    try store.space.commit(run)
    try store.checkpoint()
    store.checksums.set(run.block + 10, 7)
    let batch = store.batch
    try store.checksums.writeDirty(batch)
    #expect(try store.space.writeDirty(batch).isEmpty)
  }

  @Test func `writing again in one checkpoint uses the same slot and hands out what changed`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 100))
    try store.space.commit(store.space.allocate(upTo: 3, purpose: .data))
    let batch = store.batch
    let first = try store.space.writeDirty(batch)
    #expect(first.map(\.group) == [0])
    #expect(try store.space.writeDirty(batch).isEmpty)
    try store.space.commit(store.space.allocate(upTo: 1, purpose: .metadata))
    let second = try store.space.writeDirty(batch)
    #expect(second.map(\.record.bitmapSlot) == first.map(\.record.bitmapSlot))
    #expect(second.first?.record.freeCount == 8122)
  }

  @Test func `a crash before the superblock leaves what was`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    let run = try store.space.allocate(upTo: 4, purpose: .data)
    try store.space.commit(run)
    store.checksums.set(run.block, 77)
    try store.checkpoint()
    try store.space.deferFree(run)
    let other = try store.space.allocate(upTo: 6, purpose: .data)
    try store.space.commit(other)
    for block in other.blocks { store.checksums.set(block, 5) }
    try store.writeCheckpoint()
    let again = try store.reopened()
    #expect(again.space.freeBlockCount == 6)
    #expect(try again.checksums.checksum(of: run.block) == 77)
    #expect(try again.checksums.checksum(of: other.block) == 0)
    #expect(try again.space.allocate(upTo: 10, purpose: .data) == other)
  }

  @Test func `a failed checkpoint can be run again`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    let old = try store.space.allocate(upTo: 4, purpose: .data)
    try store.space.commit(old)
    try store.checkpoint()
    let new = try store.space.allocate(upTo: 4, purpose: .data)
    for (index, block) in new.blocks.enumerated() { store.checksums.set(block, 100 + UInt32(index)) }
    for attempt in 0..<3 {
      try store.space.commit(new)
      try store.space.deferFree(old)
      try store.writeCheckpoint()
      if attempt < 2 {
        store.failCheckpoint()
        #expect(store.space.usedBlockCount == 4)
      }
    }
    try store.checkpoint()
    try store.space.free(old)
    let again = try store.reopened()
    #expect(try again.space.allocate(upTo: 4, purpose: .data) == old)
    #expect(try again.checksums.checksum(of: new.block + 3) == 103)
  }

  @Test func `any flipped bit of a bitmap is found, and its group is passed over`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    try store.space.commit(store.space.allocate(upTo: 4, purpose: .data))
    try store.checkpoint()
    for byte in 0..<SpaceFixture.blockSize {
      try damage(193, byte: byte, store)
      let again = try store.reopened()
      #expect(errorCode { _ = try again.space.allocate(upTo: 4, purpose: .data) } == .outOfSpace)
      #expect(again.space.hasUnreadableGroups && again.space.freeBlockCount == 0)
      try damage(193, byte: byte, store)
    }
    #expect(try store.reopened().space.allocate(upTo: 10, purpose: .data).count == 6)
  }

  @Test func `groups whose bitmaps are whole and wrong are passed over`() throws {
    let store = try SpaceFixture(blockCount: SpaceFixture.blockCount(forData: 10))
    func isPassedOver(_ free: UInt32, _ change: (inout Bitmap) -> Void) throws -> Bool {
      var bitmap = store.geometry.freshBitmap
      change(&bitmap)
      let checksum = try store.device.writeMetadataBlock(193, store.geometry.blockSize) { bitmap.copy(to: $0) }
      var record = GroupRecord(freeCount: free, bitmapChecksum: checksum)
      record.bitmapSlot = 1
      store.durable.withLock { $0.tree = [0: record] }
      let again = try store.reopened()
      let run = PhysicalRun(block: 258, count: 1)
      try again.space.claim(run)
      #expect(try again.space.canChange(run) != again.space.hasUnreadableGroups)
      return again.space.hasUnreadableGroups
    }
    #expect(try !isPassedOver(8126) { _ in })
    #expect(try isPassedOver(8125) { _ in })
    #expect(
      try isPassedOver(8126) {
        $0.remove(5..<6); $0.insert(70..<71)
      })
    #expect(try isPassedOver(8125) { $0.insert(76..<77) })
  }

  @Test func `free pieces are offered for trimming once, and not allocated meanwhile`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let space = store.space
    #expect(space.nextTrim(.large) == nil)
    let run = try space.allocate(upTo: 5000, purpose: .data)
    try space.commit(run)
    try store.checkpoint()
    try space.deferFree(PhysicalRun(block: run.block + 10, count: 4500))
    try store.checkpoint()
    #expect(space.nextTrim(.large) == nil)
    try space.free(PhysicalRun(block: run.block + 10, count: 4500))
    let free = space.freeBlockCount
    guard let trim = space.nextTrim(.large) else { throw CheckFailure("nothing to trim") }
    #expect(trim == PhysicalRun(block: 1024, count: 3072))
    #expect(space.nextTrim(.large) == nil)
    #expect(space.freeBlockCount == free - trim.count)
    var taken: Set<UInt64> = []
    while errorCode({ taken.formUnion(try space.allocate(upTo: 64, purpose: .data).blocks) }) == nil {}
    #expect(taken.isDisjoint(with: trim.blocks))
    #expect(UInt64(taken.count) == free - trim.count)
    try space.didTrim(trim)
    #expect(try space.allocate(upTo: 5000, purpose: .data) == trim)
    #expect(space.nextTrim(.large) == nil)
  }

  @Test func `blocks that were allocated again are not trimmed`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let run = try store.space.allocate(upTo: 4096, purpose: .data)
    try store.space.free(run)
    _ = try store.space.allocate(upTo: 1, near: 1024 + 5, purpose: .data)
    _ = try store.space.allocate(upTo: 1, near: 3072 + 5, purpose: .data)
    #expect(store.space.nextTrim(.large) == PhysicalRun(block: 2048, count: 1024))
    #expect(store.space.nextTrim(.large) == PhysicalRun(block: 4096, count: 1024))
    #expect(store.space.nextTrim(.large) == nil)
  }

  @Test func `small pieces are offered as well where they are asked for, and each once in either size`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let space = store.space
    let run = try space.allocate(upTo: 5000, purpose: .data)
    try space.commit(run)
    try store.checkpoint()
    // With blocks of 1 KiB: 19 pieces of 64 blocks, of which 16 make one of 1024.
    let freed = PhysicalRun(block: 1000, count: 1300)
    try space.deferFree(freed)
    try store.checkpoint()
    try space.free(freed)
    #expect(space.trimmableBlockCount(.small) == 1216)
    #expect(space.trimmableBlockCount(.large) == 1024)
    let trim = PhysicalRun(block: 1024, count: 1216)
    #expect(space.nextTrim(.small) == trim)
    #expect(space.nextTrim(.small) == nil)
    #expect(space.nextTrim(.large) == nil)
    try space.didTrim(trim)
    #expect(space.nextTrim(.small) == nil)
    #expect(space.nextTrim(.large) == nil)
  }

  @Test func `what was offered as a large piece is not offered as small ones, and what lies beside it is`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let run = try store.space.allocate(upTo: 2048, near: 1024, purpose: .data)
    try store.space.free(PhysicalRun(block: run.block, count: 1024 + 128))
    #expect(store.space.nextTrim(.large) == PhysicalRun(block: 1024, count: 1024))
    #expect(store.space.nextTrim(.small) == PhysicalRun(block: 2048, count: 128))
    #expect(store.space.nextTrim(.small) == nil)
  }

  @Test func `small pieces beside a block that was allocated again are offered still`() throws {
    let store = try SpaceFixture(blockCount: 192 + 8192)
    let run = try store.space.allocate(upTo: 4096, near: 1024, purpose: .data)
    try store.space.free(run)
    _ = try store.space.allocate(upTo: 1, near: 1024 + 130, purpose: .data)
    // All of the second large piece, and the first small ones of the third.
    _ = try store.space.allocate(upTo: 1024 + 100, near: 2048, purpose: .data)
    #expect(store.space.nextTrim(.large) == PhysicalRun(block: 4096, count: 1024))
    #expect(store.space.nextTrim(.large) == nil)
    #expect(store.space.nextTrim(.small) == PhysicalRun(block: 1024, count: 128))
    #expect(store.space.nextTrim(.small) == PhysicalRun(block: 1024 + 192, count: 1024 - 192))
    #expect(store.space.nextTrim(.small) == PhysicalRun(block: 3072 + 128, count: 1024 - 128))
    #expect(store.space.nextTrim(.small) == nil)
  }
}
