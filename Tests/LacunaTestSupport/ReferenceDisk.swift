import Glibc

/// The bytes that a disk or a file must have: a flat array, with nothing clever about it.
package struct ReferenceDisk: Sendable {
  package private(set) var bytes: [UInt8]

  /// A disk of zeroes.
  package init(byteCount: Int = 0) { bytes = [UInt8](repeating: 0, count: byteCount) }

  package var byteCount: Int { bytes.count }

  /// Puts `new` at `offset`; the disk grows where needed, with zeroes before `new`.
  package mutating func write(_ new: UnsafeRawBufferPointer, at offset: Int) {
    if offset + new.count > bytes.count { resize(to: offset + new.count) }
    bytes.withUnsafeMutableBytes { UnsafeMutableRawBufferPointer(rebasing: $0[offset...]).copyMemory(from: new) }
  }

  /// Makes the part of `range` inside the disk zero.
  package mutating func zero(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<bytes.count)
    bytes.withUnsafeMutableBytes { buffer in
      guard !range.isEmpty, let base = buffer.baseAddress else { return }
      memset(base + range.lowerBound, 0, range.count)
    }
  }

  /// Cuts the disk, or lengthens it with zeroes.
  package mutating func resize(to byteCount: Int) {
    if byteCount < bytes.count {
      bytes.removeSubrange(byteCount...)
    } else {
      bytes.append(contentsOf: repeatElement(0, count: byteCount - bytes.count))
    }
  }

  /// Compares what a read at `offset` returned.
  ///
  /// - Throws: `CheckFailure` that names the first byte that differs.
  package func check(_ found: UnsafeRawBufferPointer, at offset: Int) throws {
    guard !found.isEmpty else { return }
    try bytes.withUnsafeBytes { all in
      let expected = UnsafeRawBufferPointer(rebasing: all[offset..<offset + found.count])
      guard let left = found.baseAddress, let right = expected.baseAddress else { return }
      guard memcmp(left, right, found.count) != 0 else { return }
      for index in 0..<found.count where found[index] != expected[index] {
        throw CheckFailure("byte \(offset + index) is \(found[index]) and should be \(expected[index])")
      }
    }
  }

  /// Whether all bytes of `range`, which lies in the disk, are zero.
  package func isZero(_ range: Range<Int>) -> Bool {
    bytes.withUnsafeBytes { all in
      let part = UnsafeRawBufferPointer(rebasing: all[range])
      guard let base = part.baseAddress, part.count > 0 else { return true }
      // All bytes equal the one behind them, and the first is zero.
      return part[0] == 0 && memcmp(base, base + 1, part.count - 1) == 0
    }
  }
}
