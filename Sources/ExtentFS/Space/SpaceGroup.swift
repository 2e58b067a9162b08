/// The bitmaps of one group in memory, by position in the group. Guarded by the lock of the space map.
///
/// Invariants:
/// 1. `inUse` holds every position of `committed` and of `durable`, and every position from `usableEnd` on.
/// 2. `freeCount` is the number of positions that are not in `inUse`.
/// 3. No run of free positions is longer than `longestRun`.
final class SpaceGroup {
  let number: UInt64
  /// The block at position 0.
  let firstBlock: UInt64
  /// What the next superblock will say is taken.
  private(set) var committed: Bitmap
  /// What the last durable superblock says is taken, where the running checkpoint has changed that.
  private(set) var durable: Bitmap?
  /// Whether `committed` has changed since it was last written.
  private(set) var needsWriting = false
  private(set) var inUse: Bitmap
  private(set) var freeCount: Int
  private(set) var longestRun: Int
  /// The positions from here on lie past the device's end.
  private(set) var usableEnd: Int
  /// Whether it was read to give free blocks back to the host, and none of it has been allocated since.
  var isForTrimsOnly = false

  /// The group whose durable bitmap is `committed`.
  init(number: UInt64, firstBlock: UInt64, committed: Bitmap, usableEnd: Int) {
    self.number = number
    self.firstBlock = firstBlock
    self.committed = committed
    self.usableEnd = usableEnd
    inUse = committed
    inUse.insert(usableEnd..<inUse.count)
    freeCount = inUse.count - inUse.setCount
    longestRun = freeCount
  }

  /// The device has grown: the positions below `end` may be used.
  func extend(to end: Int) {
    guard end > usableEnd else { return }
    clear(usableEnd..<end)
    usableEnd = end
  }

  /// The first free run of at least `wanted` positions from `start` on; nil where there is none.
  func findFree(_ wanted: Int, from start: Int) -> Range<Int>? {
    var longest = 0
    var position = start
    while let lower = inUse.firstClear(from: position, before: usableEnd) {
      let upper = inUse.firstSet(from: lower, before: usableEnd) ?? usableEnd
      if upper - lower >= wanted { return lower..<upper }
      longest = max(longest, upper - lower)
      position = upper
    }
    if start == 0 { longestRun = longest }
    return nil
  }

  /// Up to `wanted` free positions from `start` on, which is free; nil where it is not.
  func free(at start: Int, upTo wanted: Int) -> Range<Int>? {
    guard start < usableEnd, !inUse.contains(start) else { return nil }
    let end = min(usableEnd, start + wanted)
    return start..<(inUse.firstSet(from: start, before: end) ?? end)
  }

  func isFree(_ positions: Range<Int>) -> Bool {
    positions.upperBound <= usableEnd && !inUse.containsAny(of: positions)
  }

  /// Whether all of `blocks` lie in the group, and are free.
  func isFree(blocks: Range<UInt64>) -> Bool {
    let end = firstBlock + UInt64(inUse.count)
    return blocks.lowerBound >= firstBlock && blocks.upperBound <= end && isFree(positions(blocks))
  }

  /// The first of `blocks` that is free; where none is, the first that is not among them, or not of the group.
  func firstFree(in blocks: Range<UInt64>) -> UInt64 {
    let end = min(blocks.upperBound, firstBlock + UInt64(inUse.count))
    guard blocks.lowerBound < end else { return blocks.lowerBound }
    let positions = positions(blocks.lowerBound..<end)
    let position = inUse.firstClear(from: positions.lowerBound, before: positions.upperBound)
    return position.map { firstBlock + UInt64($0) } ?? end
  }

  func isInUse(allOf positions: Range<Int>) -> Bool {
    positions.upperBound <= usableEnd && inUse.containsAll(of: positions)
  }

  /// Whether the trees of the next superblock, or of the last durable one, reach any of the blocks.
  func isCommitted(anyOf positions: Range<Int>) -> Bool {
    committed.containsAny(of: positions) || (durable?.containsAny(of: positions) ?? false)
  }

  /// Whether the blocks were handed out and are reached by no tree.
  func isUncommitted(_ positions: Range<Int>) -> Bool { isInUse(allOf: positions) && !isCommitted(anyOf: positions) }

  /// The blocks at `positions`.
  func blocks(_ positions: Range<Int>) -> Range<UInt64> {
    firstBlock + UInt64(positions.lowerBound)..<firstBlock + UInt64(positions.upperBound)
  }

  /// The positions of `blocks`, which lie in the group.
  func positions(_ blocks: Range<UInt64>) -> Range<Int> {
    Int(blocks.lowerBound - firstBlock)..<Int(blocks.upperBound - firstBlock)
  }

  /// Whether nothing but `committed` is in use, as when it was read.
  var isAsRead: Bool {
    durable == nil && !needsWriting && freeCount == usableEnd - committed.setCount(of: 0..<usableEnd)
  }

  /// Takes positions of which some may be in use already.
  func claim(_ positions: Range<Int>) {
    isForTrimsOnly = false
    freeCount -= positions.count - inUse.setCount(of: positions)
    inUse.insert(positions)
  }

  /// Takes free positions.
  func take(_ positions: Range<Int>) {
    isForTrimsOnly = false
    takeForTrim(positions)
  }

  /// Takes free positions for a moment, in which nothing is written there.
  func takeForTrim(_ positions: Range<Int>) {
    inUse.insert(positions)
    freeCount -= positions.count
  }

  /// Makes positions free that are in use.
  func clear(_ positions: Range<Int>) {
    inUse.remove(positions)
    freeCount += positions.count
    // The run that now holds them is no longer than what it was made of.
    longestRun = min(freeCount, max(longestRun, 0) * 2 + positions.count)
  }

  func commit(_ positions: Range<Int>) {
    keepDurable()
    committed.insert(positions)
  }

  func release(_ positions: Range<Int>) {
    keepDurable()
    committed.remove(positions)
  }

  /// Hands out what has to be written, once.
  func takeForWriting() -> Bitmap? {
    guard needsWriting else { return nil }
    needsWriting = false
    return committed
  }

  func didCommit() {
    durable = nil
    needsWriting = false
  }

  func didFail() {
    if let durable { committed = durable }
    didCommit()
  }

  private func keepDurable() {
    isForTrimsOnly = false
    if durable == nil { durable = committed }
    needsWriting = true
  }
}
