/// Which bytes of the ring are in use: arithmetic alone.
///
/// ```
///   0          tail            head            byteCount
///   |   free    |  used: live   |     free       |      (or the used part goes round the end)
/// ```
///
/// 1. `tail` is a multiple of 4096, and so is the ring's length.
/// 2. The block that `head` is in belongs to the used part, up to its end.
/// 3. At least one block is always free, so that head and tail meet only where nothing is used.
struct JournalSpace: Sendable {
  /// The length of the ring.
  let byteCount: UInt64
  /// Where the next record goes, if it fits; below `byteCount`.
  private(set) var head: UInt64
  /// The bytes from the tail to `head`.
  private(set) var usedByteCount: UInt64 = 0

  /// Where a record goes.
  struct Place: Equatable {
    /// The record's first byte.
    var offset: UInt64
    /// How much to write: the record, and zeroes to the end of its last block if the record is the first in that.
    var writtenByteCount: Int
    /// What is used once the record is there.
    var usedByteCount: UInt64
  }

  init(byteCount: UInt64, start: UInt64) {
    self.byteCount = byteCount
    head = start
  }

  /// Finds the place for a record of `recordByteCount` bytes that leaves `freeBlockCount` blocks free; nil where there is none.
  func place(_ recordByteCount: Int, leaving freeBlockCount: UInt64) -> Place? {
    let count = UInt64(recordByteCount)
    let goesRound = head + count > byteCount
    let offset = goesRound ? 0 : head
    let used = usedByteCount + (goesRound ? byteCount - head : 0) + count
    let end = offset + count
    let blockEnd = JournalFormat.roundedUp(end)
    guard used + (blockEnd - end) + freeBlockCount * JournalFormat.blockByteCount <= byteCount else { return nil }
    // A write to part of a block that the kernel does not have in memory would first read it from the medium; the
    // first write to a block is therefore of all of it.
    let isLastBlockBegun = offset > blockEnd - JournalFormat.blockByteCount
    return Place(
      offset: offset, writtenByteCount: Int((isLastBlockBegun ? end : blockEnd) - offset), usedByteCount: used)
  }

  /// Takes note of a record of `recordByteCount` bytes that was written to `place`.
  mutating func didWrite(_ recordByteCount: Int, to place: Place) {
    head = place.offset + UInt64(recordByteCount)
    if head == byteCount { head = 0 }
    usedByteCount = place.usedByteCount
  }

  /// Goes on in a fresh block.
  mutating func closeBlock() {
    let end = JournalFormat.roundedUp(head)
    usedByteCount += end - head
    head = end == byteCount ? 0 : end
  }

  /// Frees everything before `tail`; false where `tail` is not in the used part.
  mutating func advanceTail(to tail: UInt64) -> Bool {
    guard tail < byteCount, tail % JournalFormat.blockByteCount == 0 else { return false }
    let used = head >= tail ? head - tail : head + byteCount - tail
    guard used <= usedByteCount else { return false }
    usedByteCount = used
    return true
  }
}
