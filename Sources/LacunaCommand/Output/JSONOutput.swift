#if canImport(FoundationEssentials)
  internal import FoundationEssentials
#else
  internal import Foundation
#endif
internal import Lacuna

/// Results as JSON, with the keys in alphabetical order: the same result is the same text. What a terminal would not show as it is
/// stands there as `\uXXXX`.
enum JSONOutput {
  /// Lines for people and programs, with the end of the last one.
  static func document(_ value: some Encodable) throws -> String {
    try text(value, [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes])
  }

  /// One line, with its end: for what comes bit by bit.
  static func line(_ value: some Encodable) throws -> String {
    try text(value, [.sortedKeys, .withoutEscapingSlashes])
  }

  private static func text(_ value: some Encodable, _ formatting: JSONEncoder.OutputFormatting) throws -> String {
    let encoder = JSONEncoder()
    encoder.outputFormatting = formatting
    return String(decoding: try encoder.encode(value), as: UTF8.self).visibleInJSON + "\n"
  }
}
