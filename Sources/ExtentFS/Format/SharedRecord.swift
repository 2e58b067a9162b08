/// A run of physical blocks with more than one reference: the key is its first block.
///
/// ```
/// 0  u64  length   in blocks, at least 1
/// 8  u64  count    references, at least 2
/// ```
package struct SharedRecord: Sendable, Hashable {
  /// How many blocks the run has.
  package var length: UInt64
  /// How many references each of them has.
  package var count: UInt64

  /// The size of an encoded record, in bytes.
  package static let encodedByteCount = 16

  /// Makes a record.
  package init(length: UInt64, count: UInt64) {
    self.length = length
    self.count = count
  }

  /// Decodes the record at `offset`.
  ///
  /// - Throws: `ExtentFSError` with `damaged` for an empty run or a count below 2.
  package init(decoding bytes: RawSpan, at offset: Int) throws(ExtentFSError) {
    length = bytes.uint64(at: offset)
    count = bytes.uint64(at: offset + 8)
    guard length > 0, length < ExtentRecord.blockLimit, count > 1 else {
      throw ExtentFSError(.damaged, "a shared run of \(length) blocks has \(count) references")
    }
  }

  /// Encodes the record at `offset`.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.store(length, at: offset)
    bytes.store(count, at: offset + 8)
  }
}
