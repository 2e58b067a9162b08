internal import ArgumentParser
internal import Glibc
internal import Lacuna

struct Stats: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Show requests, latencies, caches and space.",
    usage: "lacuna stats STORE [options]",
    discussion: """
      All counters begin when the store is opened. --watch prints a line per interval with what happened in it, or with
      --json all counters as a line of JSON.

      Examples:
        lacuna stats s.lacuna
        lacuna stats s.lacuna --watch --interval 5
        lacuna stats s.lacuna --prometheus > /var/lib/node_exporter/lacuna.prom
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Flag(name: [.short, .long], help: "Go on until Ctrl-C.")
  var watch = false

  @Option(name: [.short, .long], help: ArgumentHelp("Time between two lines (default: 1).", valueName: "seconds"))
  var interval: Double?

  @Option(name: [.customShort("n"), .long], help: ArgumentHelp("End after so many lines.", valueName: "lines"))
  var count: Int?

  @Flag(help: "Print Prometheus' text format.")
  var prometheus = false

  @OptionGroup var common: CommonOptions

  private func checkOptions() throws {
    if prometheus && (watch || common.json) { throw ValidationError("--prometheus excludes --watch and --json") }
    if !watch && (interval != nil || count != nil) { throw ValidationError("--interval and --count need --watch") }
    if let interval, !(0.01...86_400).contains(interval) {
      throw ValidationError("--interval takes seconds, from 0.01 to 86400")
    }
    if let count, count < 1 { throw ValidationError("--count takes a number from 1 on") }
  }

  func run() throws {
    try checkOptions()
    if watch { return try printLines() }
    let statistics = try call(GetStatistics(), for: .reading)
    if prometheus {
      try Terminal.write(PrometheusText(statistics, store: StoreFile.absolute(target.store)).text)
    } else {
      try show(StatisticsDocument(statistics), { _ in statistics.text })
    }
  }

  /// The store is asked anew each time, so that a free one stays free for others in between, and a server may be started
  /// again.
  private func printLines() throws {
    var before = try call(GetStatistics(), for: .reading)
    var lineCount = 0
    while lineCount < count ?? Int.max {
      usleep(useconds_t((interval ?? 1) * 1e6))
      let now = try call(GetStatistics(), for: .reading)
      if common.json {
        try Terminal.write(JSONOutput.line(StatisticsDocument(now)))
      } else {
        if lineCount % 20 == 0 { try Terminal.write(StatisticsLine.title) }
        try Terminal.write(StatisticsLine(from: before, to: now, intervalSeconds: interval ?? 1).text)
      }
      before = now
      lineCount += 1
    }
  }
}

/// The counters and what is computed from them.
private struct StatisticsDocument: Encodable {
  private enum CodingKeys: CodingKey { case writeAmplification }

  private let statistics: StoreStatistics

  init(_ statistics: StoreStatistics) { self.statistics = statistics }

  func encode(to encoder: any Encoder) throws {
    try statistics.encode(to: encoder)
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encodeIfPresent(statistics.writeAmplification, forKey: .writeAmplification)
  }
}
