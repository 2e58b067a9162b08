/// Something that a store has and that not every program knows: a bit of one of the superblock's three words, and a name for
/// people.
package struct StoreFeature: Sendable, Hashable {
  /// What a program may do that does not know a feature.
  package enum Class: UInt8, Sendable {
    /// All.
    case compatible = 1
    /// Read.
    case readOnlyCompatible = 2
    /// Nothing.
    case incompatible = 3
  }

  /// What a program may do that does not know it.
  package var kind: Class
  /// The bit, 0 to 63.
  package var bit: UInt8
  /// Its name: 1 to 31 printable characters of ASCII, without blanks.
  package var name: String

  /// How long a name may be, in bytes.
  package static let maximumNameByteCount = 31

  /// Makes a feature.
  package init(_ kind: Class, bit: UInt8, name: String) {
    self.kind = kind
    self.bit = bit
    self.name = name
  }
}

extension StoreFeature {
  /// Volumes share blocks: snapshots and clones, volumes that are being given back, quotas and reservations, and the counts in
  /// the superblock that go with them. Every new store has it.
  package static let snapshots = StoreFeature(.incompatible, bit: 0, name: "snapshots")

  /// The store's file does not grow beyond a length that the superblock has. A program that does not know it lets the file grow,
  /// and writes 0 in the place of the length.
  package static let limit = StoreFeature(.compatible, bit: 0, name: "limit")
}

/// The names of the features that a store has, so that a program can name those that it does not know.
///
/// ```
/// 280  u16  count      at most 64
/// 282    6  zero
/// 288   40  each:
///             0  u8   class    1 compatible, 2 read-only compatible, 3 incompatible
///             1  u8   bit      0 to 63
///             2  u8   length of the name in bytes, 1 to 31
///             3    5  zero
///             8   32  name, printable ASCII without blanks, then zero
/// ```
enum FeatureTable {
  private static let offset = 280
  private static let entriesOffset = 288
  private static let entryByteCount = 40
  /// How many names there is room for.
  static let maximumCount = 64

  /// The names in a superblock. They are for messages alone, so that what cannot be one is left out, and is no damage.
  static func decode(_ bytes: RawSpan) -> [StoreFeature] {
    let count = min(Int(bytes.uint16(at: offset)), maximumCount)
    return (0..<count).compactMap { index in
      let place = entriesOffset + index * entryByteCount
      let length = Int(bytes.uint8(at: place + 2))
      let name = (0..<min(length, StoreFeature.maximumNameByteCount)).map { bytes.uint8(at: place + 8 + $0) }
      guard let kind = StoreFeature.Class(rawValue: bytes.uint8(at: place)), bytes.uint8(at: place + 1) < 64,
        (1...StoreFeature.maximumNameByteCount).contains(length), name.allSatisfy({ (0x21...0x7E).contains($0) })
      else { return nil }
      return StoreFeature(kind, bit: bytes.uint8(at: place + 1), name: String(decoding: name, as: UTF8.self))
    }
  }

  /// Puts the names into a superblock that is zero there.
  static func encode(_ features: [StoreFeature], into bytes: inout MutableRawSpan) {
    precondition(features.count <= maximumCount, "a superblock has no room for the names of \(features.count) features")
    bytes.store(UInt16(features.count), at: offset)
    for (index, feature) in features.enumerated() {
      let name = Array(feature.name.utf8)
      precondition((1...StoreFeature.maximumNameByteCount).contains(name.count) && feature.bit < 64, "no such feature")
      let place = entriesOffset + index * entryByteCount
      var header = UInt64(feature.kind.rawValue)
      header |= UInt64(feature.bit) << 8
      header |= UInt64(name.count) << 16
      bytes.store(header, at: place)
      for word in 0..<4 {
        let part = name.dropFirst(8 * word).prefix(8)
        bytes.store(part.reversed().reduce(0 as UInt64) { $0 << 8 | UInt64($1) }, at: place + 8 + 8 * word)
      }
    }
  }

  /// The set bits of one word, by their names where these are known.
  static func describe(_ bits: UInt64, _ kind: StoreFeature.Class, _ names: [StoreFeature]) -> String {
    (0..<64).filter { bits >> UInt64($0) & 1 == 1 }.map { bit in
      names.first { $0.kind == kind && Int($0.bit) == bit }.map { "'\($0.name)'" } ?? "bit \(bit)"
    }.joined(separator: ", ")
  }
}
