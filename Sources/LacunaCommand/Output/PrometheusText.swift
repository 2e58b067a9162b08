internal import Lacuna

/// Statistics in Prometheus' text exposition format, version 0.0.4.
///
/// Counters end in `_total` and only grow while the store is open; times are in seconds, sizes in bytes. All have the label
/// `store`.
struct PrometheusText {
  private(set) var text = ""
  private let storeLabel: String

  init(_ statistics: StoreStatistics, store: String) {
    storeLabel = "store=\"\(Self.escaped(store))\""
    addOperations(statistics.operations)
    addEngine(statistics)
    addSpace(statistics)
  }

  private mutating func addOperations(_ operations: [(name: String, counters: StoreStatistics.Operations)]) {
    func label(_ name: String) -> String { "operation=\"\(name)\"" }
    begin("operations_total", "counter", "Requests of clients, failed ones included.")
    for (name, counters) in operations { add("operations_total", label(name), "\(counters.count)") }
    begin("operation_bytes_total", "counter", "Bytes that the requests were about.")
    for (name, counters) in operations { add("operation_bytes_total", label(name), "\(counters.bytes)") }
    begin("operation_errors_total", "counter", "Requests that failed.")
    for (name, counters) in operations { add("operation_errors_total", label(name), "\(counters.errors)") }
    begin("operation_duration_seconds", "histogram", "How long requests took.")
    for (name, counters) in operations {
      var sum: UInt64 = 0
      for (index, count) in counters.latency.buckets.enumerated() {
        sum += count
        let bound = StoreStatistics.Latency.bound(ofBucket: index).map { "\($0)" } ?? "+Inf"
        add("operation_duration_seconds_bucket", label(name) + ",le=\"\(bound)\"", "\(sum)")
      }
      add("operation_duration_seconds_sum", label(name), "\(counters.latency.seconds)")
      add("operation_duration_seconds_count", label(name), "\(sum)")
    }
  }

  private mutating func addEngine(_ statistics: StoreStatistics) {
    addOne("commits_total", "counter", "Syncs that made flushes durable.", statistics.commits.count)
    addOne("commit_flushes_total", "counter", "Flushes that these syncs answered.", statistics.commits.flushes)
    addOne("checkpoints_total", "counter", "Checkpoints.", statistics.checkpoints.count)
    addOne("checkpoint_seconds_total", "counter", "Time that checkpoints took.", statistics.checkpoints.seconds)
    addOne("checkpoint_last_seconds", "gauge", "Time that the last one took.", statistics.checkpoints.lastSeconds)
    addOne("checkpoint_longest_seconds", "gauge", "Time that the longest took.", statistics.checkpoints.longestSeconds)
    let caches = [("node", statistics.nodeCache), ("checksum", statistics.checksumCache)]
    begin("cache_hits_total", "counter", "Look-ups that a cache answered.")
    for (name, cache) in caches { add("cache_hits_total", "cache=\"\(name)\"", "\(cache.hits)") }
    begin("cache_misses_total", "counter", "Look-ups that had to read the device.")
    for (name, cache) in caches { add("cache_misses_total", "cache=\"\(name)\"", "\(cache.misses)") }
    begin("cache_bytes", "gauge", "What a cache holds.")
    for (name, cache) in caches { add("cache_bytes", "cache=\"\(name)\"", "\(cache.bytes)") }
    addOne("journal_size_bytes", "gauge", "The journal's size.", statistics.journal.size)
    addOne("journal_used_bytes", "gauge", "What waits in it for a checkpoint.", statistics.journal.used)
    addOne("journal_written_bytes_total", "counter", "What was written to it.", statistics.journal.written)
    addOne("device_read_bytes_total", "counter", "Bytes read from the device.", statistics.device.bytesRead)
    addOne("device_written_bytes_total", "counter", "Bytes written to it.", statistics.device.bytesWritten)
    addOne("device_syncs_total", "counter", "Syncs of it.", statistics.device.syncs)
  }

  private mutating func addSpace(_ statistics: StoreStatistics) {
    addOne("size_bytes", "gauge", "The size of the store's file or device.", statistics.space.size)
    addOne("used_bytes", "gauge", "What is in use of it.", statistics.space.used)
    addOne("free_bytes", "gauge", "What can be written before it is full.", statistics.space.free)
    if let count = statistics.damagedParts {
      addOne("damaged_parts", "gauge", "Parts of the store that were found to be unreadable.", count)
    }
    addOne("clients", "gauge", "Connections.", statistics.clients)
    addOne("open_seconds", "gauge", "Time since the store was opened.", statistics.seconds)
  }

  private mutating func begin(_ name: String, _ type: String, _ help: String) {
    text += "# HELP lacuna_\(name) \(help)\n# TYPE lacuna_\(name) \(type)\n"
  }

  private mutating func add(_ name: String, _ labels: String, _ value: String) {
    text += "lacuna_\(name){\(storeLabel)\(labels.isEmpty ? "" : ",")\(labels)} \(value)\n"
  }

  private mutating func addOne(_ name: String, _ type: String, _ help: String, _ value: some CustomStringConvertible) {
    begin(name, type, help)
    add(name, "", "\(value)")
  }

  /// As a label's value takes it, by scalars: a mark above a quotation mark must not hide it. The format has no other escapes than
  /// these three, so that what is not to be seen has its visible form as its value.
  private static func escaped(_ text: String) -> String {
    let lines = text.unicodeScalars.split(separator: "\n", omittingEmptySubsequences: false)
    return lines.map { line in
      String(line).visible.unicodeScalars.map { $0 == "\\" || $0 == "\"" ? "\\\($0)" : String($0) }.joined()
    }.joined(separator: "\\n")
  }
}
