import LacunaTestSupport
import NBDTestSupport

/// The bytes that a disk, or a part of it, must have, by their offsets on the disk.
struct ExpectedBytes {
  /// The part of the disk that this is about.
  let range: Range<UInt64>
  private var disk: ReferenceDisk

  /// Zeroes in `range`.
  init(range: Range<UInt64>) {
    self.range = range
    disk = ReferenceDisk(byteCount: range.count)
  }

  /// A whole disk of zeroes.
  init(byteCount: UInt64) { self.init(range: 0..<byteCount) }

  subscript(part: Range<UInt64>) -> ArraySlice<UInt8> { disk.bytes[positions(part)] }

  mutating func write(_ new: [UInt8], at offset: UInt64) {
    new.withUnsafeBytes { disk.write($0, at: Int(offset - range.lowerBound)) }
  }

  mutating func zero(_ part: Range<UInt64>) { disk.zero(positions(part)) }

  /// Whether all bytes of `part` that lie within the range are zero.
  func isZero(_ part: Range<UInt64>) -> Bool { disk.isZero(positions(part.clamped(to: range))) }

  /// Compares bytes that were read at `offset`.
  ///
  /// - Throws: `CheckFailure` that names the first byte that differs.
  func check(_ found: [UInt8], at offset: UInt64) throws {
    do {
      try found.withUnsafeBytes { try disk.check($0, at: Int(offset - range.lowerBound)) }
    } catch {
      throw CheckFailure("counted from \(range.lowerBound), \(error)")
    }
  }

  /// Reads `part` from the server in pieces and compares.
  func check(_ client: NBDClient, _ part: Range<UInt64>) throws {
    var offset = part.lowerBound
    while offset < part.upperBound {
      let end = min(offset + (1 << 20), part.upperBound)
      try check(client.read(Int(end - offset), at: offset), at: offset)
      offset = end
    }
  }

  /// Reads all of the range from the server and compares.
  func check(_ client: NBDClient) throws { try check(client, range) }

  /// Checks that what block status calls zero is.
  func checkZeroes(of extents: [AllocationExtent]) throws {
    for extent in extents where extent.state.contains(.zero) && !isZero(extent.offset..<extent.end) {
      throw CheckFailure("block status says zero of \(extent), which is not")
    }
  }

  private func positions(_ part: Range<UInt64>) -> Range<Int> {
    Int(part.lowerBound - range.lowerBound)..<Int(part.upperBound - range.lowerBound)
  }
}

extension SeededGenerator {
  /// `count` bytes, none of them zero, eight at a time: a debug build would spend minutes on single ones.
  mutating func pattern(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 1, count: count)
    bytes.withUnsafeMutableBytes { buffer in
      for offset in stride(from: 0, through: count - 8, by: 8) {
        buffer.storeBytes(of: next() | 0x0101_0101_0101_0101, toByteOffset: offset, as: UInt64.self)
      }
    }
    return bytes
  }
}
