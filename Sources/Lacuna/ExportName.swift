internal import Bytes

/// What the name of an export stands for, other than a volume or a snapshot by its own name.
///
/// ```
/// volume                 the volume
/// volume@snapshot        the snapshot
/// volume+                a throwaway of the volume, for one connection
/// volume@snapshot+       a throwaway of the snapshot
/// volume+NAME            a throwaway that those share who use the same name; also of a snapshot
/// volume@a..b            the snapshot b, with what did not change since the snapshot a as holes
/// ```
enum ExportName: Hashable {
  /// A volume or a snapshot by its name.
  case stored(String)
  /// A throwaway of `source`; without a label for one connection alone.
  case throwaway(of: String, label: String?)
  /// The snapshot `to`, against the snapshot `from`; both are whole names.
  case difference(from: String, to: String)

  /// Reads a name.
  ///
  /// - Throws: `.noSuchVolume` for what can be no export.
  init(_ text: String) throws(LacunaError) {
    if let plus = text.firstIndex(of: "+") {
      let (source, label) = (text[..<plus], text[text.index(after: plus)...])
      guard !source.isEmpty else { throw Self.refusal(text, "before the + it says what to make a throwaway of") }
      guard !Self.isDifference(source) else {
        throw Self.refusal(text, "a difference is read-only, and has no throwaway")
      }
      guard label.utf8.allSatisfy(Self.mayBeInLabel) else {
        throw Self.refusal(text, "the name after the + has letters, digits and ._- alone")
      }
      self = .throwaway(of: String(source), label: label.isEmpty ? nil : String(label))
    } else if Self.isDifference(text[...]), let at = text.firstIndex(of: "@") {
      let (volume, snapshots) = (text[..<at], text[text.index(after: at)...])
      guard let dots = snapshots.firstRange(of: ".."), dots.lowerBound > snapshots.startIndex,
        dots.upperBound < snapshots.endIndex, !volume.isEmpty
      else { throw Self.refusal(text, "a difference is VOLUME@OLDER..NEWER") }
      self = .difference(
        from: "\(volume)@\(snapshots[..<dots.lowerBound])", to: "\(volume)@\(snapshots[dots.upperBound...])")
    } else {
      self = .stored(text)
    }
  }

  /// Whether it is made of what is stored, rather than stored itself.
  var isMade: Bool {
    if case .stored = self { false } else { true }
  }

  private static func isDifference(_ text: Substring) -> Bool {
    text.firstIndex(of: "@").map { text[$0...].contains("..") } ?? false
  }

  private static func mayBeInLabel(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
      true
    default: false
    }
  }

  private static func refusal(_ text: String, _ why: String) -> LacunaError {
    LacunaError(.noSuchVolume, "there is no export '\(text.beginning(64))': \(why)")
  }
}
