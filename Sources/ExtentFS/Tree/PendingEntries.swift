internal import Bytes
internal import Extents
internal import Glibc

/// The entries of one level of a tree being built that are in no node yet, in the format of a node.
///
/// Keys rise strictly, also over entries that have gone into nodes: a tree whose nodes contradict each other is found out
/// here rather than written down again.
@safe final class PendingEntries {
  let layout: NodeLayout
  private(set) var count = 0
  // The least key that may follow; nil after the greatest key of all.
  private var nextKey: UInt64? = 0
  private let bytes: UnsafeMutableRawBufferPointer
  private let room: Int

  init(_ layout: NodeLayout) {
    self.layout = layout
    // A node is written as soon as it leaves enough for the next; a whole one may be put before what is too little.
    room = 2 * (layout.capacity + layout.minimum)
    unsafe bytes = .allocate(byteCount: room * layout.entryByteCount, alignment: 16)
  }

  deinit { unsafe bytes.deallocate() }

  var isEmpty: Bool { count == 0 }
  var isTooFew: Bool { count < layout.minimum }

  private func offset(of index: Int) -> Int {
    precondition(index >= 0 && index < count, "there is no such pending entry")
    return index * layout.entryByteCount
  }

  func key(at index: Int) -> UInt64 {
    // Safe: the offset is that of an entry.
    unsafe bytes.bytes.uint64(at: offset(of: index))
  }

  func pointer(at index: Int) -> BlockPointer {
    // Safe: as above.
    unsafe BlockPointer(decoding: bytes.bytes, at: offset(of: index) + 8)
  }

  /// Calls `body` with the bytes of the first `count` entries.
  func withFirst<Result>(_ count: Int, _ body: (UnsafeRawBufferPointer) -> Result) -> Result {
    precondition(count <= self.count, "there are fewer pending entries")
    // Safe: the entries lie inside the bytes, which live as long as this object.
    return unsafe body(UnsafeRawBufferPointer(rebasing: bytes[0..<count * layout.entryByteCount]))
  }

  /// Adds an entry; false where its key does not follow the last one.
  func append(_ key: UInt64, value: RawSpan) -> Bool {
    guard let nextKey, key >= nextKey else { return false }
    precondition(value.byteCount == layout.entryByteCount - 8 && count < room, "an entry does not fit")
    count += 1
    let offset = offset(of: count - 1)
    var span = unsafe bytes.mutableBytes
    span.store(key, at: offset)
    // Safe: the lengths were compared above.
    unsafe value.withUnsafeBytes { source in
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[offset + 8..<offset + layout.entryByteCount])
        .copyMemory(from: source)
    }
    self.nextKey = key == .max ? nil : key + 1
    return true
  }

  /// Takes the first `count` entries away.
  func removeFirst(_ count: Int) {
    precondition(count <= self.count, "there are fewer pending entries")
    let start = count * layout.entryByteCount
    let rest = (self.count - count) * layout.entryByteCount
    // Safe: both parts lie inside the bytes; `memmove` allows overlaps.
    if let base = unsafe bytes.baseAddress { unsafe memmove(base, base + start, rest) }
    self.count -= count
  }

  /// Takes the last entry away; its key may come again.
  func removeLast() {
    nextKey = key(at: count - 1)
    count -= 1
  }

  /// Puts the entries of `node`, of the same level, before the others; false where they do not lie before them.
  func prepend(_ node: Node) -> Bool {
    guard count == 0 || node.lies(below: key(at: 0)) else { return false }
    precondition(count + node.count <= room, "the entries of a node do not fit")
    if count == 0 {
      let last = node.key(at: node.count - 1)
      nextKey = last == .max ? nil : last + 1
    }
    // Safe: the room was compared above.
    unsafe node.withEntries { entries in
      guard let base = unsafe bytes.baseAddress else { return }
      unsafe memmove(base + entries.count, base, count * layout.entryByteCount)
      unsafe UnsafeMutableRawBufferPointer(rebasing: bytes[0..<entries.count]).copyMemory(from: entries)
    }
    count += node.count
    return true
  }
}

// For levels of extents alone.
extension PendingEntries {
  func extent(at index: Int) -> ExtentRecord? {
    // Safe: the offset is that of an entry.
    unsafe ExtentRecord(decoding: bytes.bytes, at: offset(of: index))
  }

  /// Lengthens the last extent by `extent`, where that continues it and one can be so long.
  func lengthenLast(by extent: ExtentRecord) -> Bool {
    guard count > 0, let joined = self.extent(at: count - 1)?.joined(with: extent) else { return false }
    let offset = offset(of: count - 1)
    // Safe: as above.
    var span = unsafe bytes.mutableBytes
    joined.encode(into: &span, at: offset)
    nextKey = joined.blocks.upperBound
    return true
  }

  /// Joins entry `index` with the one before it, where the two are one.
  func join(at index: Int) {
    guard index > 0, index < count, let left = extent(at: index - 1), let right = extent(at: index),
      let joined = left.joined(with: right)
    else { return }
    let offset = offset(of: index)
    let next = offset + layout.entryByteCount
    let end = count * layout.entryByteCount
    // Safe: the entries lie inside the bytes; `memmove` allows overlaps.
    var span = unsafe bytes.mutableBytes
    joined.encode(into: &span, at: offset - layout.entryByteCount)
    if let base = unsafe bytes.baseAddress { unsafe memmove(base + offset, base + next, end - next) }
    count -= 1
  }
}

extension ExtentRecord {
  /// This extent and `next` in one; nil where they are not one run, or one too long.
  func joined(with next: ExtentRecord) -> ExtentRecord? {
    let (length, isTooLong) = self.length.addingReportingOverflow(next.length)
    guard !isTooLong, blocks.upperBound == next.logical,
      target.advanced(by: UInt64(self.length)) == next.target
    else { return nil }
    return ExtentRecord(logical: logical, length: length, target: target)
  }
}
