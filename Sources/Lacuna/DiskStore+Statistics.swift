internal import Bytes
internal import Devices
internal import ExtentFS

extension DiskStore {
  /// What the store has done since it was opened.
  func statistics() -> StoreStatistics {
    var statistics = StoreStatistics()
    statistics.seconds = (ContinuousClock.now - opening).inSeconds
    statistics.clients = clients.withLock { $0.values.reduce(0, +) }
    let sum = operations.sum()
    statistics.reads = sum.statistics(of: .read)
    statistics.writes = sum.statistics(of: .write)
    statistics.zeroes = sum.statistics(of: .zero)
    statistics.trims = sum.statistics(of: .trim)
    statistics.flushes = sum.statistics(of: .flush)
    let activity = engine.statistics
    statistics.commits = StoreStatistics.Commits(count: activity.syncCount, flushes: activity.flushCount)
    statistics.checkpoints = StoreStatistics.Checkpoints(
      count: activity.checkpoints.count, seconds: activity.checkpoints.sum.inSeconds,
      lastSeconds: activity.checkpoints.last.inSeconds, longestSeconds: activity.checkpoints.longest.inSeconds)
    statistics.nodeCache = StoreStatistics.Cache(activity.nodes)
    statistics.checksumCache = StoreStatistics.Cache(activity.checksums)
    statistics.journal = StoreStatistics.Journal(
      size: engine.journalByteCount, used: activity.journalUsedByteCount, written: activity.journalByteCount)
    statistics.device = StoreStatistics.Device(
      bytesRead: device.counters.readByteCount,
      bytesWritten: device.counters.writtenByteCount &+ activity.mappedJournalByteCount,
      syncs: device.counters.syncCount)
    statistics.damagedParts = engine.damage.all.count
    let figures = engine.usage
    statistics.space = StoreStatistics.Space(
      size: figures.deviceByteCount, used: figures.usedByteCount, free: figures.freeByteCount)
    return statistics
  }
}

extension StoreStatistics.Cache {
  fileprivate init(_ figures: CacheStatistics) {
    self.init(hits: figures.hitCount, misses: figures.missCount, bytes: figures.byteCount)
  }
}

extension Duration {
  fileprivate var inSeconds: Double { Double(components.seconds) + Double(components.attoseconds) / 1e18 }
}
