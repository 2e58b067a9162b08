internal import Bytes
internal import Devices

extension Engine {
  /// Counts the blocks that all volumes map. Once, when the store is opened.
  func countMappedBlocks() throws(ExtentFSError) {
    let catalog = Catalog(nodes: nodes, superblock: state.withLock { $0.superblock })
    var count: UInt64 = 0
    try catalog.forEach { _, record throws(ExtentFSError) in
      // Each is at most 2^62; what is damaged must not trap.
      count = min(count, ExtentRecord.blockLimit) + record.mappedBlocks
      return true
    }
    state.withLock { $0.mappedBlockCount = count }
  }

  /// Keeps as many blocks from data as the next checkpoint may need for nodes, so that trims, flushes and checkpoints
  /// succeed on a full store.
  ///
  /// What is used and not mapped are nodes. A merge rewrites each at most once, and may split it; besides, it adds at most two
  /// entries for each record that the journal has room for. The nodes that it replaces are free only afterwards.
  func updateReserve() {
    let mapped = state.withLock { $0.mappedBlockCount }
    let nodeCount = space.usedBlockCount.minusOrZero(mapped)
    let editCount = journal.byteCount / UInt64(JournalFormat.rangeByteCount)
    let perNode = UInt64(NodeLayout(.extents, level: 0, blockByteCount: blockSize.byteCount).capacity)
    space.setReserve(2 * nodeCount + 2 * editCount / perNode + Self.reserveBlockCount)
    deadBlockLimit.store(deadBlockCountMax, ordering: .relaxed)
  }

  /// For the catalog's nodes, those of the space tree, and the levels above the leaves.
  private static var reserveBlockCount: UInt64 { 32 }
}
