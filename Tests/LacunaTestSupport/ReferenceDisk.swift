import Glibc

/// The bytes that a disk or a file must have: a flat array, with nothing clever about it.
///
/// Whole ranges are moved by the C library: in debug builds a loop over bytes would take most of a test's time.
package struct ReferenceDisk: Sendable {
  package private(set) var byteCount = 0
  /// The bytes, then zeroes.
  private var storage: [UInt8] = []

  /// A disk of zeroes.
  package init(byteCount: Int = 0) { resize(to: byteCount) }

  package var bytes: [UInt8] { Array(storage[..<byteCount]) }

  /// Puts `new` at `offset`; the disk grows where needed, with zeroes before `new`.
  package mutating func write(_ new: UnsafeRawBufferPointer, at offset: Int) {
    guard let source = new.baseAddress, !new.isEmpty else { return }
    resize(to: max(byteCount, offset + new.count))
    withBase { memcpy($0 + offset, source, new.count) }
  }

  /// Makes the part of `range` inside the disk zero.
  package mutating func zero(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<byteCount)
    withBase { memset($0 + range.lowerBound, 0, range.count) }
  }

  /// Cuts the disk, or lengthens it with zeroes.
  package mutating func resize(to newCount: Int) {
    if newCount < byteCount { zero(newCount..<byteCount) }
    while newCount > storage.count { storage += [UInt8](repeating: 0, count: max(4096, storage.count)) }
    byteCount = newCount
  }

  /// Compares what a read at `offset` returned.
  ///
  /// - Throws: `CheckFailure` that names the first byte that differs.
  package func check(_ found: UnsafeRawBufferPointer, at offset: Int) throws {
    guard !found.isEmpty else { return }
    try LacunaTestSupport.check(offset + found.count <= byteCount, "bytes behind the end at \(byteCount) were read")
    try storage.withUnsafeBytes { all in
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
    storage.withUnsafeBytes { all in
      let part = UnsafeRawBufferPointer(rebasing: all[range])
      guard let base = part.baseAddress, part.count > 0 else { return true }
      // All bytes equal the one behind them, and the first is zero.
      return part[0] == 0 && memcmp(base, base + 1, part.count - 1) == 0
    }
  }

  private mutating func withBase(_ body: (UnsafeMutableRawPointer) -> Void) {
    storage.withUnsafeMutableBytes { all in if let base = all.baseAddress { body(base) } }
  }
}
