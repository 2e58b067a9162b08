import Lacuna
import Logging

/// The log of an open store, in nbdkit's: errors as nbdkit's errors, warnings as lines of their own, and all else where nbdkit runs
/// with `-v`.
struct NBDKitLog: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.debug

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    let text = "\(event.message)"
    switch event.level {
    case .critical, .error: say(error: text)
    case .warning: warn(text)
    // A warning says all there is for people; the numbers of the others are in the metadata.
    case .notice, .info, .debug, .trace: debug(LogText.line(text, metadata.merging(event.metadata ?? [:]) { $1 }))
    }
  }
}
