/// One block of a store as text.
package struct BlockDump: Sendable, Equatable {
  /// What the block is.
  package enum Kind: String, Sendable {
    case superblock
    case journal
    case bitmap
    case checksums
    case node
    case data
    /// In no group, or behind the store's end, or in none of the places that the format uses.
    case unused
    /// For data and nodes, and neither now.
    case free
  }

  package var block: UInt64
  package var kind: Kind
  /// The tree of a node.
  package var tree: NodeKind?
  /// What the block says of itself, in the order of the format: for programs.
  package var fields: [(name: String, value: String)] = []
  /// What else is in it, for people.
  package var lines: [String] = []
  /// What is wrong with it; empty where nothing is, as far as one block tells.
  package var problems: [String] = []

  init(_ block: UInt64, _ kind: Kind) {
    self.block = block
    self.kind = kind
  }

  mutating func add(_ name: String, _ value: some CustomStringConvertible) { fields.append((name, value.description)) }

  /// What the block is, in words.
  package var name: String { tree.map { "\($0) node" } ?? kind.rawValue }

  /// All of it, a line each: the name, what is wrong, the fields, the rest.
  package var text: [String] {
    ["block \(block): \(name)"] + problems.map { "  WRONG: \($0)" }
      + fields.map { "  \($0.name): \($0.value)" } + lines.map { "  \($0)" }
  }

  package static func == (left: BlockDump, right: BlockDump) -> Bool {
    left.block == right.block && left.kind == right.kind && left.text == right.text
  }
}

extension FixedWidthInteger {
  /// The number in hexadecimal, with all of its digits.
  var hex: String {
    let digits = String(self, radix: 16)
    return "0x" + String(repeating: "0", count: Swift.max(0, Self.bitWidth / 4 - digits.count)) + digits
  }
}

/// Bytes as people look at them: 16 in a line, with the offset and what is printable. Lines like the one before are left out.
enum HexDump {
  /// How many lines are shown.
  private static var lineCountMax: Int { 64 }

  static func lines(_ bytes: [UInt8]) -> [String] {
    var (lines, last, isRepeating): ([String], ArraySlice<UInt8>, Bool) = ([], [], false)
    for start in stride(from: 0, to: bytes.count, by: 16) {
      let row = bytes[start..<min(start + 16, bytes.count)]
      if row.elementsEqual(last) {
        if !isRepeating { lines.append("*") }
        isRepeating = true
        continue
      }
      (last, isRepeating) = (row, false)
      guard lines.count < lineCountMax else {
        lines.append("... and \(bytes.count - start) more bytes")
        break
      }
      let digits = row.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: " ")
      let letters = String(decoding: row.map { (0x20...0x7E).contains($0) ? $0 : UInt8(ascii: ".") }, as: UTF8.self)
      let padding = String(repeating: " ", count: 3 * (16 - row.count))
      lines.append("\(UInt16(truncatingIfNeeded: start).hex.dropFirst(2))  \(digits)\(padding)  \(letters)")
    }
    return lines
  }
}
