internal import Bytes

/// What names of volumes and snapshots may be: `vms/web1` and `vms/web1@monday`.
///
/// A volume's name has components between slashes, of the letters and digits of ASCII and `._-`; none is empty, `.` or `..`. A
/// snapshot's adds an `@` and one more component, which has no two dots in a row and none at its ends, so that
/// `volume@a..b` can mean two snapshots. A name has 255 bytes at most. New volumes have no name that a command line would take for
/// an option; stores may have some of before.
package enum VolumeName {
  /// - Throws: `.invalidArgument` where `name` cannot be that of a new `kind`.
  package static func check(_ name: String, _ kind: InodeRecord.Kind) throws(ExtentFSError) {
    guard name.utf8.count <= InodeRecord.maximumNameByteCount else {
      throw ExtentFSError(
        .invalidArgument, "the name '\(name.beginning(32))...' has more than \(InodeRecord.maximumNameByteCount) bytes")
    }
    let parts = name.split(separator: "@", omittingEmptySubsequences: false)
    switch kind {
    case .volume:
      guard isVolume(name) else {
        throw ExtentFSError(
          .invalidArgument,
          "'\(name)' is not a valid volume name: those have letters, digits and ._-, in components between slashes")
      }
      guard !name.hasPrefix("-") else {
        throw ExtentFSError(
          .invalidArgument, "'\(name)' is not a valid name for a new volume: it begins with -, as options do")
      }
    case .snapshot:
      guard parts.count == 2, isVolume(String(parts[0])), isSnapshotPart(String(parts[1])) else {
        throw ExtentFSError(
          .invalidArgument,
          "'\(name)' is not a valid snapshot name: those are VOLUME@NAME, and NAME has letters, digits and ._-, with no dot at its ends and no two together"
        )
      }
    case .deleted: break
    }
  }

  /// Whether `create`, `snapshot` and the like would make a volume or a snapshot of that name.
  package static func isForNew(_ name: String) -> Bool {
    guard !name.hasPrefix("-") else { return false }
    let kind: InodeRecord.Kind = name.utf8.contains(UInt8(ascii: "@")) ? .snapshot : .volume
    do throws(ExtentFSError) {
      try check(name, kind)
      return true
    } catch {
      return false
    }
  }

  /// Why no program that names volumes would have made this name, also not one of before there were rules for names; nil where one
  /// may have (docs/format.md, section 7).
  package static func forgery(of name: String) -> String? {
    let components = name.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
    if components.contains(where: { $0.isEmpty || $0.elementsEqual(".".utf8) || $0.elementsEqual("..".utf8) }) {
      return "is no path: a part between slashes is empty, . or .."
    }
    let hidden = name.unicodeScalars.first { scalar in hiddenRanges.contains { $0.contains(scalar.value) } }
    return hidden.map { "has U+\(String($0.value, radix: 16, uppercase: true)) in it, which cannot be seen" }
  }

  /// Control characters, and what changes the direction of writing, ends lines or has no width.
  private static let hiddenRanges: [ClosedRange<UInt32>] = [
    0...0x1F, 0x7F...0x9F, 0x61C...0x61C, 0x200B...0x200F, 0x2028...0x202E, 0x2060...0x206F, 0xFEFF...0xFEFF,
    0xE0000...0xE007F,
  ]

  /// The volume of which `name` is a snapshot; `name` itself where it is none.
  package static func volume(of name: String) -> Substring { name.prefix { $0 != "@" } }

  /// Whether `name` can be that of a volume.
  package static func isVolume(_ name: String) -> Bool {
    name.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { component in
      isComponent(component) && component != "." && component != ".."
    }
  }

  /// Whether `name` can stand behind the `@` of a snapshot.
  package static func isSnapshotPart(_ name: String) -> Bool {
    isComponent(name[...]) && !name.hasPrefix(".") && !name.hasSuffix(".") && !name.utf8.hasTwoDots
  }

  private static func isComponent(_ part: Substring) -> Bool {
    !part.isEmpty
      && part.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "-"):
          true
        default: false
        }
      }
  }

  static func missing(_ name: String) -> ExtentFSError {
    ExtentFSError(.noSuchVolume, "there is no \(name.contains("@") ? "snapshot" : "volume") '\(name.beginning(300))'")
  }

  static func taken(_ name: String) -> ExtentFSError {
    ExtentFSError(.nameTaken, "there is a \(name.contains("@") ? "snapshot" : "volume") '\(name)' already")
  }
}

extension String.UTF8View {
  fileprivate var hasTwoDots: Bool { zip(self, dropFirst()).contains { $0 == UInt8(ascii: ".") && $1 == $0 } }
}
