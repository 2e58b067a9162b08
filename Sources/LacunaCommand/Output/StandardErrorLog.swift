internal import Lacuna
internal import Logging

/// The log of an open store on standard error, a line each: `lacuna: info: the store is open (records=3, volumes=1)`.
struct StandardErrorLog: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel = Logger.Level.debug

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    Terminal.say(
      "\(event.level): \(LogText.line("\(event.message)", metadata.merging(event.metadata ?? [:]) { $1 }))")
  }
}
