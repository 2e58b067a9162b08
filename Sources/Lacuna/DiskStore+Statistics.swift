internal import Bytes
internal import Devices
internal import ExtentFS

extension DiskStore {
  /// What the store has done since it was opened.
  func statistics() -> StoreStatistics {
    var statistics = StoreStatistics()
    let sum = operations.sum()
    statistics.reads = sum.statistics(of: .read)
    statistics.writes = sum.statistics(of: .write)
    statistics.zeroes = sum.statistics(of: .zero)
    statistics.trims = sum.statistics(of: .trim)
    statistics.flushes = sum.statistics(of: .flush)
    statistics.clients = clients.withLock { $0.values.reduce(0, +) }
    let figures = engine.figures
    statistics.space = StoreStatistics.Space(
      size: figures.deviceByteCount, used: figures.usedByteCount, free: figures.freeByteCount)
    return statistics
  }
}
