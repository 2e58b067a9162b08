package import Logging

/// Lines of a log as people read them.
package enum LogText {
  /// The message, and its metadata in the order of their keys: `the store is open (records=3, volumes=1)`.
  package static func line(_ message: String, _ metadata: Logger.Metadata) -> String {
    guard !metadata.isEmpty else { return message }
    let facts = metadata.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }
    return "\(message) (\(facts.joined(separator: ", ")))"
  }
}
