internal import Lacuna

extension StoreStatistics {
  /// The kinds of requests with their names, in the order in which they are shown.
  var operations: [(name: String, counters: Operations)] {
    [("read", reads), ("write", writes), ("zero", zeroes), ("trim", trims), ("flush", flushes)]
  }

  /// For people: a table of requests, and lines about the rest.
  var text: String {
    var table = Table([
      ("REQUEST", .left), ("COUNT", .right), ("BYTES", .right), ("FAILED", .right), ("MEAN", .right),
      ("MEDIAN", .right),
      ("99%", .right),
    ])
    for (name, counters) in operations {
      let latency = counters.latency
      table.add([
        name, "\(counters.count)", HumanReadable.bytes(counters.bytes), "\(counters.errors)",
        counters.count == 0 ? "-" : HumanReadable.duration(seconds: latency.seconds / Double(counters.count)),
        latency.text(ofQuantile: 0.5), latency.text(ofQuantile: 0.99),
      ])
    }
    return table.text + "\n" + facts
  }

  private var facts: String {
    var facts = FactSheet()
    facts.add("open for", HumanReadable.duration(seconds: seconds))
    facts.add("clients", "\(clients)")
    facts.add("commits", Self.commits(commits))
    facts.add("checkpoints", Self.checkpoints(checkpoints))
    facts.add("node cache", Self.cache(nodeCache))
    facts.add("checksum cache", Self.cache(checksumCache))
    facts.add(
      "journal",
      "\(HumanReadable.bytes(journal.used)) of \(HumanReadable.bytes(journal.size)) "
        + "(\(HumanReadable.percent(Double(journal.used), of: Double(journal.size)))), "
        + "\(HumanReadable.bytes(journal.written)) written")
    facts.add(
      "device",
      "\(HumanReadable.bytes(device.bytesRead)) read, \(HumanReadable.bytes(device.bytesWritten)) written, "
        + HumanReadable.count(device.syncs, "sync"))
    facts.add("write amplification", writeAmplification.map(HumanReadable.threeDigits) ?? "-")
    facts.add(
      "space",
      "\(HumanReadable.bytes(space.used)) of \(HumanReadable.bytes(space.size)) used, "
        + "\(HumanReadable.bytes(space.free)) free")
    return facts.text
  }

  private static func commits(_ commits: Commits) -> String {
    guard commits.count > 0 else { return "0" }
    let group = HumanReadable.threeDigits(Double(commits.flushes) / Double(commits.count))
    return "\(commits.count), each for \(group) flushes"
  }

  private static func checkpoints(_ checkpoints: Checkpoints) -> String {
    guard checkpoints.count > 0 else { return "0" }
    let mean = HumanReadable.duration(seconds: checkpoints.seconds / Double(checkpoints.count))
    return "\(checkpoints.count), mean \(mean), last \(HumanReadable.duration(seconds: checkpoints.lastSeconds)), "
      + "longest \(HumanReadable.duration(seconds: checkpoints.longestSeconds))"
  }

  private static func cache(_ cache: Cache) -> String {
    let hits = HumanReadable.percent(Double(cache.hits), of: Double(cache.hits) + Double(cache.misses))
    return "\(HumanReadable.bytes(cache.bytes)), \(hits) hits"
  }
}

extension StoreStatistics.Latency {
  /// The upper bound of a bucket in seconds; nil for the last one, which has none.
  static func bound(ofBucket index: Int) -> Double? {
    index < bucketCount - 1 ? Double(UInt64(1) << UInt64(index)) / 1e6 : nil
  }

  /// A time that the part `quantile` of all requests stayed below, as exactly as the buckets tell it: within a factor of two.
  func text(ofQuantile quantile: Double) -> String {
    let total = buckets.reduce(0, +)
    guard total > 0 else { return "-" }
    var sum: UInt64 = 0
    for (index, count) in buckets.enumerated() {
      sum += count
      if Double(sum) >= quantile * Double(total) {
        guard let bound = Self.bound(ofBucket: index) else { break }
        return "< \(HumanReadable.duration(seconds: bound))"
      }
    }
    return "> \(HumanReadable.duration(seconds: Self.bound(ofBucket: Self.bucketCount - 2) ?? 0))"
  }
}

/// What happened between two looks at the counters, in columns of a fixed width.
struct StatisticsLine {
  let text: String

  static let title = row([
    "READS/S", "READ/S", "WRITES/S", "WRITTEN/S", "FLUSHES/S", "WRITE", "FLUSH", "JOURNAL", "USED",
  ])

  init(from before: StoreStatistics, to now: StoreStatistics, intervalSeconds: Double) {
    // A store that was opened anew counts from 0 again.
    let base = now.seconds < before.seconds ? StoreStatistics() : before
    let elapsed = now.seconds - base.seconds
    let seconds = elapsed > 0 ? elapsed : intervalSeconds
    func rate(_ path: (StoreStatistics) -> UInt64) -> Double { Double(path(now) &- path(base)) / seconds }
    func bytes(_ rate: Double) -> String { HumanReadable.bytes(UInt64(rate)) }
    func mean(_ path: (StoreStatistics) -> StoreStatistics.Operations) -> String {
      let count = path(now).count - path(base).count
      guard count > 0 else { return "-" }
      return HumanReadable.duration(seconds: (path(now).latency.seconds - path(base).latency.seconds) / Double(count))
    }
    text = Self.row([
      HumanReadable.threeDigits(rate(\.reads.count)), bytes(rate(\.reads.bytes)),
      HumanReadable.threeDigits(rate(\.writes.count)), bytes(rate(\.writes.bytes)),
      HumanReadable.threeDigits(rate(\.flushes.count)), mean(\.writes), mean(\.flushes),
      HumanReadable.percent(Double(now.journal.used), of: Double(now.journal.size)),
      HumanReadable.bytes(now.space.used),
    ])
  }

  private static func row(_ cells: [String]) -> String {
    cells.map { String(repeating: " ", count: max(9 - $0.count, 0)) + $0 }.joined(separator: " ") + "\n"
  }
}
