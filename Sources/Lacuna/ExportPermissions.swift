/// Which exports the clients of a server may open, and which of them they may write to.
package struct ExportPermissions: Sendable {
  /// What a client may do with an export.
  package enum Permission: Sendable, Hashable {
    case reading, writing
  }

  private var patterns: [ExportPattern] = []

  /// Allows all exports, until ``allow(_:)`` names some.
  package init() {}

  /// Allows what `pattern` names; what none of the patterns names is then refused. Where several name the same export, it may be
  /// written to if one of them says so.
  package mutating func allow(_ pattern: ExportPattern) { patterns.append(pattern) }

  /// What a client may do with the export `name`, which is not the empty name; nil where it must not open it.
  ///
  /// What changed between two snapshots, `volume@a..b`, may be read by those who may read both.
  package func permission(for name: String) -> Permission? {
    guard !patterns.isEmpty else { return .writing }
    if case .difference(let from, let to)? = try? ExportName(name) {
      return named(from) != nil && named(to) != nil ? .reading : nil
    }
    return named(name)
  }

  private func named(_ name: String) -> Permission? {
    let found = patterns.filter { $0.matches(name) }
    if found.isEmpty { return nil }
    return found.allSatisfy(\.isReadOnly) ? .reading : .writing
  }
}

/// Names of exports, with placeholders, such as `job/*`, `golden@1+*` or `backup/**:ro`.
///
/// `*` stands for any characters but `/`, `@` and `+`, so that neither volumes further down nor the snapshots and throwaways of a
/// volume are meant by accident; `**` stands for any characters at all. `:ro` at the end is for reading only.
package struct ExportPattern: Sendable {
  /// Whether what it names may only be read.
  package let isReadOnly: Bool
  private let parts: [Part]

  private enum Part: Equatable {
    case byte(UInt8)
    case anyInComponent
    case any
  }

  /// Reads a pattern.
  ///
  /// - Throws: `.invalidParameter` where it names nothing.
  package init(_ text: String) throws(LacunaError) {
    // By bytes: a combining mark after a character is no part of it here.
    var bytes = Array(text.utf8)[...]
    isReadOnly = bytes.suffix(3).elementsEqual(":ro".utf8)
    if isReadOnly { bytes = bytes.dropLast(3) }
    guard !bytes.isEmpty else {
      throw LacunaError(.invalidParameter, "'\(text)' names no export; 'job/*' or 'vm1:ro' does, for example")
    }
    guard !bytes.contains(UInt8(ascii: ":")) else {
      throw LacunaError(
        .invalidParameter, "'\(text)': after the colon of a pattern only ro, for reading only, may stand")
    }
    var parts: [Part] = []
    for byte in bytes {
      switch (byte, parts.last) {
      case (UInt8(ascii: "*"), .anyInComponent): parts[parts.count - 1] = .any
      case (UInt8(ascii: "*"), .any): break
      case (UInt8(ascii: "*"), _): parts.append(.anyInComponent)
      default: parts.append(.byte(byte))
      }
    }
    self.parts = parts
  }

  /// Whether `name` is one of those that it stands for, to the byte. It takes at most the product of both lengths in steps.
  func matches(_ name: String) -> Bool {
    let bytes = Array(name.utf8)
    // Which beginnings of the name the parts so far stand for, by their lengths.
    var isReached = [true] + Array(repeating: false, count: bytes.count)
    for part in parts {
      switch part {
      case .byte(let wanted):
        for index in bytes.indices.reversed() { isReached[index + 1] = isReached[index] && bytes[index] == wanted }
        isReached[0] = false
      case .anyInComponent, .any:
        for index in bytes.indices where isReached[index] && (part == .any || !Self.isSeparator(bytes[index])) {
          isReached[index + 1] = true
        }
      }
    }
    return isReached[bytes.count]
  }

  private static func isSeparator(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: "/") || byte == UInt8(ascii: "@") || byte == UInt8(ascii: "+")
  }
}
