internal import Bytes
internal import Checksums

/// The bytes of the journal's records.
///
/// All numbers are little-endian. A record begins at a multiple of 8 and lies in one piece inside the ring.
///
/// | offset | size | field |
/// | ---: | ---: | --- |
/// | 0 | 4 | CRC-32C of the record from byte 4 to its end |
/// | 4 | 4 | byte count of the whole record, a multiple of 8 |
/// | 8 | 8 | store tag: the first 8 bytes of the UUID |
/// | 16 | 8 | epoch |
/// | 24 | 8 | sequence number |
/// | 32 | 8 | durable sequence number |
/// | 40 | 1 | kind: 1 map, 2 unmap, 3 reserve zeroes, 5 commit marker |
/// | 41 | 7 | zero |
///
/// Then, for a map:
///
/// | offset | size | field |
/// | ---: | ---: | --- |
/// | 48 | 8 | inode |
/// | 56 | 8 | first logical block |
/// | 64 | 8 | first physical block |
/// | 72 | 4 | number of blocks *n*, 1 to 4096 |
/// | 76 | 4 | zero |
/// | 80 | 4 *n* | CRC-32C of each block; then zero up to a multiple of 8 |
///
/// For an unmap and a reserve: inode, first logical block, number of blocks, 8 bytes each. For a marker: nothing.
///
/// Where the next record lies: right behind the last one; or at the next multiple of 4096, after a commit or a cut; or at
/// the start of the ring, where it would not fit the ring's rest. A reader tries these places in this order. At most one of
/// them holds the record, because sequence numbers are never used twice; so nothing has to be written to fill what is skipped.
package enum JournalFormat {
  package static var headerByteCount: Int { 48 }
  package static var mapHeaderByteCount: Int { 80 }
  package static var rangeByteCount: Int { 72 }
  /// The most blocks in one map record.
  package static var mapBlockCountMax: Int { 4096 }
  /// The longest record.
  package static var recordByteCountMax: Int { mapHeaderByteCount + 4 * mapBlockCountMax }
  /// The journal's unit: what is durable and what is written later never share one.
  package static var blockByteCount: UInt64 { 4096 }
  /// The shortest ring.
  package static var regionByteCountMin: UInt64 { 65536 }
  /// Sequence numbers start below this, so that they never overflow, whatever a superblock says.
  package static var startSequenceMax: UInt64 { 1 << 62 }

  /// The kinds of records on the medium.
  package enum Kind: UInt8 {
    case map = 1
    case unmap = 2
    case reserve = 3
    case commitMarker = 5
  }

  /// The length in bytes of a map record for `blockCount` blocks.
  package static func mapByteCount(blockCount: Int) -> Int { (mapHeaderByteCount + 4 * blockCount + 7) & ~7 }

  static func roundedUp(_ offset: UInt64) -> UInt64 { (offset + blockByteCount - 1) & ~(blockByteCount - 1) }
}

/// A buffer that a record is built in: it has the record's length.
@safe struct JournalRecordBuilder {
  private let bytes: UnsafeMutableRawBufferPointer
  private let byteCount: Int

  /// Builds in `bytes`, the caller's, which outlive the builder.
  init(_ bytes: UnsafeMutableRawBufferPointer) {
    unsafe self.bytes = bytes
    byteCount = bytes.count
  }

  /// Puts the body of a map record.
  func putMap(inode: UInt64, logical: UInt64, physical: UInt64, checksums: UnsafeBufferPointer<UInt32>) {
    put(inode, at: 48)
    put(logical, at: 56)
    put(physical, at: 64)
    put(UInt64(checksums.count), at: 72)
    // The last word, of which the last checksum may leave half.
    put(0, at: byteCount - 8)
    #if _endian(little)
      // Safe: the buffer has room for this many.
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[80...]).copyMemory(from: UnsafeRawBufferPointer(checksums))
    #else
      #error("checksums are copied as they are")
    #endif
  }

  /// Puts the body of an unmap or reserve record.
  func putRange(inode: UInt64, logical: Range<UInt64>) {
    put(inode, at: 48)
    put(logical.lowerBound, at: 56)
    put(logical.length, at: 64)
  }

  /// Puts the header, with the checksum of all that is there.
  func seal(_ kind: JournalFormat.Kind, _ identity: JournalIdentity, sequence: UInt64, durableSequence: UInt64) {
    put(UInt64(byteCount) << 32, at: 0)
    put(identity.storeTag, at: 8)
    put(identity.epoch, at: 16)
    put(sequence, at: 24)
    put(durableSequence, at: 32)
    put(UInt64(kind.rawValue), at: 40)
    // Safe: a record is longer than four bytes.
    let checksum = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[4...]))
    put(UInt64(byteCount) << 32 | UInt64(checksum), at: 0)
  }

  private func put(_ number: UInt64, at offset: Int) {
    // Safe: checked by the buffer in debug builds; every offset above is inside the record of its kind.
    unsafe bytes.storeBytes(of: number.littleEndian, toByteOffset: offset, as: UInt64.self)
  }
}

/// A record whose checksum, store and epoch are right; its other fields are not looked at yet.
@safe struct CheckedJournalRecord {
  private let bytes: UnsafeRawBufferPointer
  /// The record's length in bytes.
  let byteCount: Int

  /// Looks for a record of `identity` at the start of `bytes`; nil where there is none.
  init?(_ bytes: UnsafeRawBufferPointer, _ identity: JournalIdentity) {
    guard bytes.count >= JournalFormat.headerByteCount else { return nil }
    // Safe: the header is inside. Store and epoch come first only because comparing is cheap; nothing follows from them
    // unless the checksum is right too.
    let (first, tag, epoch) = unsafe (bytes.number(at: 0), bytes.number(at: 8), bytes.number(at: 16))
    let byteCount = Int(first >> 32)
    guard tag == identity.storeTag, epoch == identity.epoch,
      byteCount >= JournalFormat.headerByteCount, byteCount <= bytes.count, byteCount & 7 == 0
    else { return nil }
    // Safe: the record is inside `bytes`.
    let record = unsafe UnsafeRawBufferPointer(rebasing: bytes[..<byteCount])
    guard unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: record[4...])) == UInt32(truncatingIfNeeded: first)
    else { return nil }
    unsafe self.bytes = record
    self.byteCount = byteCount
  }

  // Safe: the header is inside.
  var sequence: UInt64 { unsafe bytes.number(at: 24) }
  var durableSequence: UInt64 { unsafe bytes.number(at: 32) }

  /// Takes the record apart.
  ///
  /// - Throws: `.damaged` where a field cannot be. The checksum is right, so that this is no torn record but a wrong one.
  func decoded() throws(ExtentFSError) -> JournalRecord {
    // Safe: the header is inside.
    let kind = unsafe JournalFormat.Kind(rawValue: bytes[40])
    let change: JournalRecord.Change?
    switch kind {
    case .map: change = map()
    case .unmap: change = range().map { .unmap(inode: $0, logical: $1) }
    case .reserve: change = range().map { .reserve(inode: $0, logical: $1) }
    case .commitMarker: change = byteCount == JournalFormat.headerByteCount ? .commitMarker : nil
    case nil: change = nil
    }
    guard let change, durableSequence < sequence else {
      throw ExtentFSError(.damaged, "journal record \(sequence) has a right checksum and invalid fields")
    }
    return JournalRecord(sequence: sequence, durableSequence: durableSequence, change: change)
  }

  private func map() -> JournalRecord.Change? {
    guard byteCount > JournalFormat.mapHeaderByteCount else { return nil }
    // Safe: just checked.
    let blockCount = unsafe bytes.number(at: 72)
    guard blockCount >= 1, blockCount <= JournalFormat.mapBlockCountMax,
      byteCount == JournalFormat.mapByteCount(blockCount: Int(blockCount))
    else { return nil }
    let (inode, logical, physical) = unsafe (bytes.number(at: 48), bytes.number(at: 56), bytes.number(at: 64))
    guard Range(offset: logical, byteCount: blockCount) != nil, physical != 0,
      Range(offset: physical, byteCount: blockCount) != nil
    else { return nil }
    // Safe: the record's length is that of so many checksums.
    let checksums = (0..<Int(blockCount)).map { index in
      unsafe UInt32(littleEndian: bytes.loadUnaligned(fromByteOffset: 80 + 4 * index, as: UInt32.self))
    }
    return .map(inode: inode, logical: logical, physical: physical, checksums: checksums)
  }

  private func range() -> (UInt64, Range<UInt64>)? {
    guard byteCount == JournalFormat.rangeByteCount else { return nil }
    // Safe: just checked.
    let (inode, first, length) = unsafe (bytes.number(at: 48), bytes.number(at: 56), bytes.number(at: 64))
    guard length > 0, let logical = Range(offset: first, byteCount: length) else { return nil }
    return (inode, logical)
  }
}

extension UnsafeRawBufferPointer {
  fileprivate func number(at offset: Int) -> UInt64 {
    // Safe: the caller knows that the number is inside.
    unsafe UInt64(littleEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self))
  }
}
