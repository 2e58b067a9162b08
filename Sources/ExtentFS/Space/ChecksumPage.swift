/// The checksums of the blocks that one checksum block is for, in memory. Guarded by the lock of its stripe.
///
/// Invariant: where `isComplete` is false, the values of `dirty` are right, and nothing is known of the others.
final class ChecksumPage {
  /// The number of the checksum block: 32 times the group's, plus its index there.
  let number: UInt64
  private(set) var values: ContiguousArray<UInt32>
  /// Values that were set and that no durable superblock leads to yet.
  private(set) var dirty: Bitmap
  /// Values that the running checkpoint has written.
  private(set) var writing: Bitmap?
  /// Whether all values are known.
  private(set) var isComplete = false
  /// Whether it was used since the sweep for room last came by.
  var isReferenced = true

  /// A page of which nothing is known.
  init(number: UInt64, count: Int) {
    self.number = number
    values = ContiguousArray(repeating: 0, count: count)
    dirty = Bitmap(count: count)
  }

  /// Whether the page may leave memory: what it holds is on the device.
  var isClean: Bool { dirty.isEmpty && writing == nil }

  /// The value at `index`, nil where it has to be read first.
  @inline(__always)
  func value(at index: Int) -> UInt32? { isComplete || dirty.contains(index) ? values[index] : nil }

  @inline(__always)
  func set(_ index: Int, _ value: UInt32) {
    values[index] = value
    dirty.insert(index..<index + 1)
  }

  /// Copies the values at `indices` to `buffer`, which has room for exactly them; false where one has to be read first.
  func copy(_ indices: Range<Int>, to buffer: UnsafeMutableBufferPointer<UInt32>) -> Bool {
    guard isComplete || dirty.containsAll(of: indices) else { return false }
    // Safe: the index is less than the buffer's length.
    for index in indices { unsafe buffer[index - indices.lowerBound] = values[index] }
    return true
  }

  /// Takes over the values of the page on the device, but where newer ones were set.
  func complete(with stored: ContiguousArray<UInt32>) {
    guard !isComplete else { return }
    for index in 0..<values.count where !dirty.contains(index) { values[index] = stored[index] }
    isComplete = true
  }

  /// Forgets that values were set whose blocks were given up before any superblock reached them.
  func forgetUnused(inUse: Bitmap) { dirty = dirty.intersection(inUse) }

  /// Whether a value is set that the running checkpoint has to write.
  func needsWriting(_ committed: Bitmap) -> Bool { !dirty.intersection(committed).isEmpty }

  /// Hands out the values to write, 0 for blocks that are not in use. The page is complete.
  ///
  /// A block that is in use and not committed may be one that was given up, and that a reader's view still leads to: its checksum
  /// lives as long as that, also where the page leaves memory meanwhile.
  func takeForWriting(_ committed: Bitmap, inUse: Bitmap) -> ContiguousArray<UInt32> {
    let taken = dirty.intersection(committed)
    dirty = dirty.subtracting(taken)
    writing = taken.union(writing)
    var written = values
    for index in 0..<written.count where !inUse.contains(index) { written[index] = 0 }
    return written
  }

  func didCommit() { writing = nil }

  func didFail() {
    dirty = dirty.union(writing)
    writing = nil
  }
}
