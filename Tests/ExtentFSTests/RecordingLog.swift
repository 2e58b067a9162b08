import Bytes
import Logging

/// A log that keeps all that it gets.
final class RecordingLog: Sendable {
  struct Line: Sendable {
    var level: Logger.Level
    var text: String
    var facts: [String: String]
  }

  private let kept = Locked<[Line]>([])
  private let hook = Locked<@Sendable (Line) -> Void>({ _ in })

  var lines: [Line] { kept.withLock { $0 } }

  /// From now on `body` is called with each line, before the call to the log returns.
  func onLine(_ body: @escaping @Sendable (Line) -> Void) { hook.withLock { $0 = body } }

  var logger: Logger { Logger(label: "test", factory: { _ in Handler(log: self) }) }

  private struct Handler: LogHandler {
    let log: RecordingLog
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
      let facts = (event.metadata ?? [:]).mapValues { "\($0)" }
      let line = Line(level: event.level, text: "\(event.message)", facts: facts)
      log.kept.withLock { $0.append(line) }
      log.hook.withLock { $0 }(line)
    }
  }
}
