/// The 16 bytes that tell one store from every other.
package struct StoreUUID: Sendable, Hashable, CustomStringConvertible {
  /// The first eight bytes as a little-endian integer: the store's tag in its journal.
  package var tag: UInt64
  /// The last eight bytes as a little-endian integer.
  package var rest: UInt64

  /// Makes a UUID from its two halves.
  package init(tag: UInt64, rest: UInt64) {
    self.tag = tag
    self.rest = rest
  }

  /// Makes a random UUID (version 4).
  package static func random() -> StoreUUID {
    StoreUUID(
      tag: UInt64.random(in: 0...UInt64.max) & 0xFF0F_FFFF_FFFF_FFFF | 0x0040_0000_0000_0000,
      rest: UInt64.random(in: 0...UInt64.max) & ~0xC0 | 0x80)
  }

  /// Decodes the UUID at `offset`.
  package init(decoding bytes: RawSpan, at offset: Int) {
    tag = bytes.uint64(at: offset)
    rest = bytes.uint64(at: offset + 8)
  }

  /// Encodes the UUID at `offset`.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.store(tag, at: offset)
    bytes.store(rest, at: offset + 8)
  }

  /// The usual text: five groups of hexadecimal digits.
  package var description: String {
    var text = ""
    for index in 0..<16 {
      let half = index < 8 ? tag : rest
      let byte = half >> UInt64(index % 8 * 8) & 0xFF
      if [4, 6, 8, 10].contains(index) { text += "-" }
      text += (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }
    return text
  }
}
