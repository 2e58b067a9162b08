internal import Atomics
internal import Bytes

extension BlockFile {
  /// Writes all of `bytes` at `offset`. The file grows where needed; a gap behind its old end is a hole.
  ///
  /// Parts of blocks at both ends are completed with what is there, and no byte of a concurrent write to the same blocks
  /// is lost. Allocates nothing on the heap but what publishing the mapping needs, if the bytes are whole blocks.
  ///
  /// - Throws: `.outOfRange` where the end lies above 2^63 - 1, `.outOfSpace`, `.device`; the file is then as it was.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    guard let range = Range(offset: offset, byteCount: bytes.count) else {
      throw .beyondLargestFile(offset, bytes.count)
    }
    guard !range.isEmpty else { return }
    let blocks = blockSize.blocks(touching: range)
    var basis = current.load(ordering: .acquiring)
    let runs = try allocate(blocks, in: basis.map)
    do {
      try unsafe write(bytes, range, into: runs, from: blocks.lowerBound)
      let edges = BlockEdges(of: range, blockSize)
      repeat {
        for edge in edges { try fill(edge, of: range, in: runs, blocks, from: basis.map) }
        // Another write may have changed the rest of a block that this one completes. It has succeeded, so the file as a
        // whole goes on, and this write looks again.
      } while try !publish(
        blocks, since: &basis, unlessMoved: edges,
        { map in
          map.place(runs, from: blocks.lowerBound)
          map.byteCount = max(map.byteCount, range.upperBound)
        })
    } catch {
      try free(runs)
      throw error
    }
  }

  /// Makes `range` read as zeroes. The file does not grow: what lies behind its end is left out.
  ///
  /// - Parameter keepsSpace: whole blocks become reserved zeroes instead of holes. Where the store's mapping has none of
  ///   those, they are written.
  public func zero(in range: Range<UInt64>, keepsSpace: Bool) throws(StoreError) {
    let size = byteCount
    let range = range.clamped(to: 0..<size)
    guard !range.isEmpty else { return }
    let blocks = wholeBlocks(in: range, fileSize: size)
    for edge in BlockEdges(of: range, blockSize) where !blocks.contains(edge) {
      try writeZeroes(blockSize.bytes(of: edge..<edge + 1, within: range), evenInHoles: keepsSpace)
    }
    guard !blocks.isEmpty else { return }
    if keepsSpace, !Backing.Map.holdsReservedZeroes {
      try writeZeroes(blockSize.bytes(of: blocks, within: range), evenInHoles: true)
    } else {
      try change(blocks) { $0.replace(blocks, with: keepsSpace ? .reservedZeroes : nil) }
    }
  }

  /// Makes the whole blocks in `range` holes; parts of blocks at its ends keep what they hold.
  public func discard(in range: Range<UInt64>) throws(StoreError) {
    let size = byteCount
    let blocks = wholeBlocks(in: range.clamped(to: 0..<size), fileSize: size)
    guard !blocks.isEmpty else { return }
    try change(blocks) { $0.replace(blocks, with: nil) }
  }

  /// Sets the file's size. Bytes behind a lower one are gone; those up to a higher one are a hole.
  ///
  /// - Throws: `.outOfRange` above 2^63 - 1; `.outOfSpace`, `.device`, where the last block cannot be cut.
  public func truncate(to byteCount: UInt64) throws(StoreError) {
    guard byteCount <= UInt64(Int64.max) else { throw .beyondLargestFile(byteCount, 0) }
    let kept = blockSize.block(at: byteCount)
    let changed = kept..<blockSize.blocks(toHold: UInt64(Int64.max))
    var cut: PhysicalRunList?
    do {
      // The last block is cut under the writers' lock, so that no write can come between the cut and the new size.
      try change(changed) { map throws(StoreError) in
        let remainder = blockSize.remainder(of: byteCount)
        if byteCount < map.byteCount, remainder > 0, map.target(of: kept)?.physicalBlock != nil {
          let end = blockSize.offset(of: kept + 1)
          let runs = try allocate(kept..<kept + 1, in: map)
          cut = runs
          try fill(kept, of: byteCount..<end, in: runs, kept..<kept + 1, from: map)
          try unsafe withZeroes(Int(end - byteCount)) { zeroes throws(StoreError) in
            try unsafe write(UnsafeRawBufferPointer(zeroes), byteCount..<end, into: runs, from: kept)
          }
          map.replace(kept + 1..<changed.upperBound, with: nil)
          map.place(runs, from: kept)
        } else if byteCount < map.byteCount {
          map.replace(blockSize.blocks(toHold: byteCount)..<changed.upperBound, with: nil)
        }
        map.byteCount = byteCount
      }
    } catch {
      if let cut { try free(cut) }
      throw error
    }
  }
}

extension BlockFile {
  /// Blocks for the logical `blocks`, as close behind the preceding block as the store can make it.
  private func allocate(_ blocks: Range<UInt64>, in map: Backing.Map) throws(StoreError) -> PhysicalRunList {
    var runs = PhysicalRunList()
    var near = blocks.lowerBound == 0 ? nil : map.target(of: blocks.lowerBound - 1)?.physicalBlock.map { $0 + 1 }
    var missing = blocks.length
    do {
      while missing > 0 {
        let run = try backing.allocate(missing, near: near)
        runs.append(run)
        missing -= run.count
        near = run.blocks.upperBound
      }
    } catch {
      try free(runs)
      throw error
    }
    return runs
  }

  private func free(_ runs: PhysicalRunList) throws(StoreError) {
    try runs.forEach { run throws(StoreError) in try backing.free(run) }
  }

  /// Writes `bytes`, which belong at the logical `range`, into `runs`, which stand for the logical blocks from `first` on.
  private func write(
    _ bytes: UnsafeRawBufferPointer, _ range: Range<UInt64>, into runs: PhysicalRunList, from first: UInt64
  ) throws(StoreError) {
    var next = first
    try runs.forEach { run throws(StoreError) in
      let part = blockSize.bytes(of: next..<next + run.count, within: range)
      // Safe: `part` lies in `range`, which is as long as `bytes`.
      let source = unsafe UnsafeRawBufferPointer(
        rebasing: bytes[Int(part.lowerBound - range.lowerBound)..<Int(part.upperBound - range.lowerBound)])
      try unsafe backing.write(source, to: run.block, skip: Int(part.lowerBound - blockSize.offset(of: next)))
      next += run.count
    }
  }

  /// Completes the new copy of the block `edge` with the bytes outside `range` that `map` has for it.
  private func fill(
    _ edge: UInt64, of range: Range<UInt64>, in runs: PhysicalRunList, _ blocks: Range<UInt64>, from map: Backing.Map
  ) throws(StoreError) {
    guard let new = runs.block(at: edge - blocks.lowerBound) else { return }
    let old = map.target(of: edge)?.physicalBlock
    let block = blockSize.offset(of: edge)..<blockSize.offset(of: edge + 1)
    let inside = block.clamped(to: range)
    for part in [block.lowerBound..<inside.lowerBound, inside.upperBound..<block.upperBound] where !part.isEmpty {
      let skip = Int(part.lowerBound - block.lowerBound)
      try unsafe withZeroes(Int(part.length)) { bytes throws(StoreError) in
        if let old { try unsafe backing.read(into: bytes, from: old, skip: skip) }
        try unsafe backing.write(UnsafeRawBufferPointer(bytes), to: new, skip: skip)
      }
    }
  }

  /// Writes zeroes over `range`; leaves out holes, unless told otherwise.
  private func writeZeroes(_ range: Range<UInt64>, evenInHoles: Bool) throws(StoreError) {
    var next = range.lowerBound
    while next < range.upperBound {
      let end = min(range.upperBound, next + 1 << 20)
      var isMapped = evenInHoles
      forEachExtent(in: next..<end) { _, kind in
        isMapped = isMapped || kind == .data
        return !isMapped
      }
      if isMapped {
        try unsafe withZeroes(Int(end - next)) { zeroes throws(StoreError) in
          try unsafe write(UnsafeRawBufferPointer(zeroes), at: next)
        }
      }
      next = end
    }
  }

  /// The blocks that lie wholly in `range`, which ends inside the file; the last block counts as if the file filled it.
  private func wholeBlocks(in range: Range<UInt64>, fileSize: UInt64) -> Range<UInt64> {
    guard range.upperBound == fileSize else { return blockSize.blocks(inside: range) }
    let first = blockSize.blocks(toHold: range.lowerBound)
    return first..<max(first, blockSize.blocks(toHold: fileSize))
  }
}

/// Runs `body` with a scratch buffer of `byteCount` zeroes.
private func withZeroes<Result>(
  _ byteCount: Int, _ body: (UnsafeMutableRawBufferPointer) throws(StoreError) -> Result
) throws(StoreError) -> Result {
  let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 16)
  defer { unsafe buffer.deallocate() }
  unsafe buffer.initializeMemory(as: UInt8.self, repeating: 0)
  return try unsafe body(buffer)
}

/// The blocks at the ends of a range that it covers only in part: none, one or two.
struct BlockEdges: Sequence, IteratorProtocol, ExpressibleByArrayLiteral {
  private var head: UInt64?
  private var tail: UInt64?

  init(arrayLiteral elements: UInt64...) {
    head = elements.first
    tail = elements.count > 1 ? elements.last : nil
  }

  init(of range: Range<UInt64>, _ blockSize: BlockSize) {
    if blockSize.remainder(of: range.lowerBound) > 0 { head = blockSize.block(at: range.lowerBound) }
    if blockSize.remainder(of: range.upperBound) > 0 {
      let last = blockSize.block(at: range.upperBound)
      tail = last == head ? nil : last
    }
  }

  mutating func next() -> UInt64? { head.take() ?? tail.take() }
}

extension BlockMap {
  /// Maps the logical blocks from `first` on to `runs`, in order.
  fileprivate mutating func place(_ runs: PhysicalRunList, from first: UInt64) {
    var next = first
    runs.forEach { run in
      replace(next..<next + run.count, with: .physical(run.block))
      next += run.count
    }
  }
}

extension PhysicalRunList {
  /// The block at `index` of all the runs' blocks; nil behind the end.
  fileprivate func block(at index: UInt64) -> UInt64? {
    var left = index
    var found: UInt64?
    forEach { run in
      if found == nil, left < run.count { found = run.block + left }
      left = left < run.count ? left : left - run.count
    }
    return found
  }
}

extension StoreError {
  static func beyondLargestFile(_ offset: UInt64, _ byteCount: Int) -> StoreError {
    StoreError(.outOfRange, "\(byteCount) bytes at offset \(offset) end beyond the largest file, 2^63 - 1 bytes")
  }
}
