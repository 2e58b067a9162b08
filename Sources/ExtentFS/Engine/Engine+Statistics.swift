internal import Bytes
internal import Devices

/// What a store says of itself as a whole, in bytes.
package struct StoreUsage: Sendable {
  /// The length of the device.
  package var deviceByteCount: UInt64
  /// What is in use: data, nodes, and what superblocks, journal, bitmaps and checksums take.
  package var usedByteCount: UInt64
  /// The part of that which superblocks, journal, bitmaps and checksums take.
  package var fixedByteCount: UInt64
  /// What data could have now. Without a limit: what is free on the device as it is, since nobody knows how far it grows.
  package var freeByteCount: UInt64
  /// When the store was made, in seconds since 1970.
  package var createdSeconds: UInt64
  /// The store's own limit: the length that its file does not grow beyond. Nil for none.
  package var limitByteCount: UInt64?
  /// Of the last checkpoint.
  package var generation: UInt64
  package var featureNames: [String]
}

/// What a store has done since it was opened.
package struct EngineStatistics: Sendable {
  /// How many flushes were asked for, and how many syncs answered them, and made checkpoints durable.
  package var flushCount: UInt64
  package var syncCount: UInt64
  package var checkpoints: CheckpointTimes
  package var nodes: CacheStatistics
  package var checksums: CacheStatistics
  /// Bytes written to the journal, and how many of them without a call to the device.
  package var journalByteCount: UInt64
  package var mappedJournalByteCount: UInt64
  /// Bytes of the journal that wait for a checkpoint.
  package var journalUsedByteCount: UInt64
}

extension Engine {
  /// Where the marks of the superblocks are on the device, in bytes, that of the newest first. A store whose newest superblock has its
  /// mark is whole: one that lacks nothing but the mark is known for what it was.
  package var superblockMarks: [Range<UInt64>] {
    let slot = superblocks.slot
    return [slot, 1 - slot].map { slot in
      let start = StoreGeometry.superblockOffset(ofSlot: slot)
      return start..<start + 8
    }
  }

  /// What the store has done since it was opened.
  package var statistics: EngineStatistics {
    let counts = nodes.counts
    let journalByteCounts = journal.writtenByteCounts
    return EngineStatistics(
      flushCount: commits.requestCount, syncCount: commits.syncCount, checkpoints: checkpoints.checkpointTimes,
      nodes: CacheStatistics(
        hitCount: counts.hits, missCount: counts.misses,
        byteCount: UInt64(nodes.nodeCount) << blockSize.shift),
      checksums: checksums.cacheStatistics, journalByteCount: journalByteCounts.all,
      mappedJournalByteCount: journalByteCounts.mapped, journalUsedByteCount: journal.usedByteCount)
  }

  /// What the store says of itself as a whole, now.
  package var usage: StoreUsage {
    let superblock = self.superblock
    let shift = blockSize.shift
    let usable = geometry.usableBlockCount(inDeviceOf: space.blockCount)
    let fixed = space.blockCount.saturatingSubtract(usable)
    let free = space.isUnlimited ? space.freeBlockCount : space.availableBlockCount
    return StoreUsage(
      deviceByteCount: device.byteCount, usedByteCount: (space.usedBlockCount + fixed) << shift,
      fixedByteCount: fixed << shift, freeByteCount: free << shift, createdSeconds: superblock.createdSeconds,
      limitByteCount: superblock.limitByteCount == 0 ? nil : superblock.limitByteCount,
      generation: superblock.generation,
      featureNames: superblock.featureNames.map(\.name))
  }
}
