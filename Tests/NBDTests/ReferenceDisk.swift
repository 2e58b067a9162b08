import Glibc
import NBDTestSupport

/// The bytes of a disk, or of a part of it, as they must be: a flat array in memory.
struct ReferenceDisk {
  /// The part of the disk that the array holds.
  let range: Range<UInt64>
  private(set) var bytes: [UInt8]

  init(range: Range<UInt64>) {
    self.range = range
    bytes = [UInt8](repeating: 0, count: range.count)
  }

  init(byteCount: UInt64) { self.init(range: 0..<byteCount) }

  subscript(part: Range<UInt64>) -> ArraySlice<UInt8> { bytes[indices(part)] }

  mutating func write(_ new: [UInt8], at offset: UInt64) {
    let indices = indices(offset..<offset + UInt64(new.count))
    bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[indices]).copyBytes(from: new) }
  }

  mutating func zero(_ part: Range<UInt64>) {
    let indices = indices(part)
    bytes.withUnsafeMutableBytes { bytes in
      _ = UnsafeMutableRawBufferPointer(rebasing: bytes[indices]).initializeMemory(as: UInt8.self, repeating: 0)
    }
  }

  /// Whether all bytes of `part` that lie within the disk's range are zero.
  func isZero(_ part: Range<UInt64>) -> Bool {
    self[part.clamped(to: range)].withUnsafeBytes { bytes in
      // A comparison with itself, moved by one byte: a debug build takes a hundred times as long for a loop.
      guard let start = bytes.baseAddress, bytes.count > 0 else { return true }
      return bytes[0] == 0 && memcmp(start, start + 1, bytes.count - 1) == 0
    }
  }

  /// Reads `part` from the server in pieces.
  ///
  /// - Throws: `Mismatch` at the first byte that differs.
  func check(_ client: NBDClient, _ part: Range<UInt64>) throws {
    var offset = part.lowerBound
    while offset < part.upperBound {
      let end = min(offset + (1 << 20), part.upperBound)
      try check(client.read(Int(end - offset), at: offset), at: offset)
      offset = end
    }
  }

  /// Reads all of the disk's range from the server and compares.
  func check(_ client: NBDClient) throws { try check(client, range) }

  /// Compares bytes that were read at `offset`.
  func check(_ found: [UInt8], at offset: UInt64) throws {
    let expected = self[offset..<offset + UInt64(found.count)]
    if ReferenceDisk.isSame(found[...], expected) { return }
    for (index, pair) in zip(found, expected).enumerated() where pair.0 != pair.1 {
      throw Mismatch(offset: offset + UInt64(index), expected: pair.1, found: pair.0)
    }
  }

  /// Checks that what block status calls zero is.
  ///
  /// - Throws: `BrokenRule` at the first extent that is not.
  func checkZeroes(of extents: [AllocationExtent]) throws {
    for extent in extents where extent.state.contains(.zero) && !isZero(extent.offset..<extent.end) {
      throw BrokenRule(description: "block status says zero of \(extent), which is not")
    }
  }

  /// Whether both hold the same bytes.
  static func isSame(_ left: ArraySlice<UInt8>, _ right: ArraySlice<UInt8>) -> Bool {
    left.count == right.count
      && left.withUnsafeBytes { left in
        right.withUnsafeBytes { right in
          guard let leftStart = left.baseAddress, let rightStart = right.baseAddress else { return true }
          return memcmp(leftStart, rightStart, left.count) == 0
        }
      }
  }

  private func indices(_ part: Range<UInt64>) -> Range<Int> {
    Int(part.lowerBound - range.lowerBound)..<Int(part.upperBound - range.lowerBound)
  }
}

/// A byte that is not what was written last.
struct Mismatch: Error, CustomStringConvertible {
  var offset: UInt64
  var expected: UInt8
  var found: UInt8
  var description: String { "byte \(offset) is \(found) and should be \(expected)" }
}

/// A rule of the protocol or of the plugin that an answer breaks.
struct BrokenRule: Error, CustomStringConvertible {
  var description: String
}
