internal import Atomics
internal import Bytes
internal import Extents

extension BlockFile {
  /// Writes all of `bytes` at `offset`. The file grows where needed; a gap behind its old end is a hole.
  ///
  /// Parts of blocks at both ends are completed with what is there, and no byte of a concurrent write to the same blocks
  /// is lost. Allocates nothing on the heap but what publishing the mapping needs, if the bytes are whole blocks.
  ///
  /// - Throws: `.outOfRange` where the end lies above 2^63 - 1, `.outOfSpace`, `.deviceFailed`; the file is then as it was, or, where
  ///   it overwrites in place and the device failed, has old and new bytes in any mixture.
  public func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    guard let range = Range(offset: offset, byteCount: bytes.count) else {
      throw .beyondLargestFile(offset, bytes.count)
    }
    _ = try unsafe write(bytes, range, mayGrow: true)
  }

  /// Makes `range` read as zeroes. The file does not grow: what lies behind its end is left out.
  ///
  /// - Parameter keepsSpace: whole blocks become reserved zeroes instead of holes. Where the store's mapping has none of
  ///   those, they are written.
  /// - Throws: `.outOfSpace`, `.deviceFailed`; some of the range may then read as zeroes.
  public func zero(in range: Range<UInt64>, keepsSpace: Bool) throws(StoreError) {
    if keepsSpace, !Backing.Map.holdsUnwritten { return try writeZeroes(range, evenInHoles: true) }
    var inFile = range
    var whole: Range<UInt64> = 0..<0
    try change { map throws(StoreError) in
      inFile = range.clamped(to: 0..<map.byteCount)
      whole = wholeBlocks(in: inFile, fileSize: map.byteCount)
      guard !whole.isEmpty else { return nil }
      map.replace(whole, with: keepsSpace ? .unwritten : nil)
      return whole
    }
    for edge in BlockEdges(of: inFile, blockSize) where !whole.contains(edge) {
      try writeZeroes(blockSize.bytes(of: edge..<edge + 1, within: inFile), evenInHoles: keepsSpace)
    }
  }

  /// Makes the whole blocks in `range` holes; parts of blocks at its ends keep what they hold.
  public func discard(in range: Range<UInt64>) throws(StoreError) {
    try change { map throws(StoreError) in
      let blocks = wholeBlocks(in: range.clamped(to: 0..<map.byteCount), fileSize: map.byteCount)
      guard !blocks.isEmpty else { return nil }
      map.replace(blocks, with: nil)
      return blocks
    }
  }

  /// Sets the file's size. Bytes behind a lower one are gone; those up to a higher one are a hole.
  ///
  /// - Throws: `.outOfRange` above 2^63 - 1; `.outOfSpace`, `.deviceFailed`, where the last block cannot be cut.
  public func truncate(to byteCount: UInt64) throws(StoreError) {
    guard byteCount <= UInt64(Int64.max) else { throw .beyondLargestFile(byteCount, 0) }
    let end = blockSize.blocks(toHold: byteCount)
    var cut = PhysicalRunList()
    do {
      try withoutOverwriting { () throws(StoreError) in
        try change { map throws(StoreError) in
          let isLower = byteCount < map.byteCount
          map.byteCount = byteCount
          guard isLower else { return end..<end }
          let gone = end..<blockSize.blocks(toHold: UInt64(Int64.max))
          map.replace(gone, with: nil)
          guard blockSize.remainder(of: byteCount) > 0, map.target(of: end - 1)?.physicalBlock != nil else {
            return gone
          }
          // The last block is cut under the writers' lock, so that no write can come between the cut and the new size.
          cut = try allocate(end - 1..<end, in: map)
          try cutBlock(end - 1, at: byteCount, into: cut, from: map)
          map.place(cut, from: end - 1)
          return end - 1..<gone.upperBound
        }
      }
    } catch {
      reclaimer.free(cut)
      throw error
    }
  }
}

extension BlockFile {
  /// Writes `bytes`, which belong at `range`; false, with nothing changed, where the file is shorter and must not grow.
  private func write(
    _ bytes: UnsafeRawBufferPointer, _ range: Range<UInt64>, mayGrow: Bool
  ) throws(StoreError) -> Bool {
    if range.isEmpty { return true }
    if try unsafe overwrite(bytes, range) { return true }
    let blocks = blockSize.blocks(touching: range)
    var basis = current.load(ordering: .acquiring)
    let runs = try allocate(blocks, in: basis.map)
    do {
      try unsafe write(bytes, range, into: runs, from: blocks.lowerBound)
      let isPlaced =
        BlockEdges(of: range, blockSize).isEmpty
        ? try place(runs, at: range, mayGrow, since: &basis)
        // What is copied to complete a block must not change meanwhile.
        : try withoutOverwriting { () throws(StoreError) in try place(runs, at: range, mayGrow, since: &basis) }
      if !isPlaced { reclaimer.free(runs) }
      return isPlaced
    } catch {
      reclaimer.free(runs)
      throw error
    }
  }

  /// Writes `bytes` where the blocks of `range` are, if all of them are there and this file's alone, and the file overwrites in
  /// place; else does nothing and returns false.
  private func overwrite(_ bytes: UnsafeRawBufferPointer, _ range: Range<UInt64>) throws(StoreError) -> Bool {
    guard let overwriting else { return false }
    return try overwriting.withReadLock { () throws(StoreError) in
      let view = current.load(ordering: .acquiring)
      // The view keeps the blocks that it maps from being used for anything else.
      defer { withExtendedLifetime(view) {} }
      guard range.upperBound <= view.map.byteCount else { return false }
      var runs = PhysicalRunList()
      var isOwn = true
      let blocks = blockSize.blocks(touching: range)
      view.map.forEachPiece(in: blocks) { piece, target in
        guard let block = target?.physicalBlock else {
          isOwn = false
          return false
        }
        let run = PhysicalRun(block: block, count: piece.length)
        isOwn = !backing.isShared(run)
        runs.append(run)
        return isOwn
      }
      guard isOwn else { return false }
      try unsafe write(bytes, range, into: runs, from: blocks.lowerBound)
      return true
    }
  }

  /// Completes the blocks at the ends of `range`, and maps the range to `runs`; false where the file is too short and must not
  /// grow.
  private func place(
    _ runs: PhysicalRunList, at range: Range<UInt64>, _ mayGrow: Bool, since basis: inout View<Backing>
  ) throws(StoreError) -> Bool {
    let blocks = blockSize.blocks(touching: range)
    let edges = BlockEdges(of: range, blockSize)
    repeat {
      if !mayGrow, basis.map.byteCount < range.upperBound { return false }
      for edge in edges { try fill(edge, of: range, in: runs, blocks, from: basis.map) }
      // Another write may have changed the rest of a block that this one completes. It has succeeded, so the file as a whole
      // goes on, and this write looks again.
    } while try !publish(
      since: &basis, unlessMoved: edges,
      { map in
        guard mayGrow || range.upperBound <= map.byteCount else { return nil }
        map.place(runs, from: blocks.lowerBound)
        map.byteCount = max(map.byteCount, range.upperBound)
        return blocks
      })
    return true
  }

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
      reclaimer.free(runs)
      throw error
    }
    return runs
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

  /// Makes a copy of `block`, which ends with zeroes from byte `end` of the file on.
  private func cutBlock(
    _ block: UInt64, at end: UInt64, into copy: PhysicalRunList, from map: Backing.Map
  ) throws(StoreError) {
    let tail = end..<blockSize.offset(of: block + 1)
    try fill(block, of: tail, in: copy, block..<block + 1, from: map)
    try unsafe withZeroes(Int(tail.length)) { zeroes throws(StoreError) in
      try unsafe write(UnsafeRawBufferPointer(zeroes), tail, into: copy, from: block)
    }
  }

  /// Writes zeroes over the part of `range` inside the file, piece by piece; leaves out pieces that are zeroes already, but
  /// holes only where told so.
  private func writeZeroes(_ range: Range<UInt64>, evenInHoles: Bool) throws(StoreError) {
    let pieceBlocks = max(1, blockSize.block(at: Self.zeroesByteCountMax))
    var next = range.lowerBound
    while true {
      let pieceEnd = blockSize.offset(of: blockSize.block(at: next) + pieceBlocks)
      let piece = next..<max(next, min(pieceEnd, range.upperBound, byteCount))
      guard !piece.isEmpty else { return }
      var needsZeroes = false
      forEachExtent(in: piece) { _, kind in
        needsZeroes = needsZeroes || kind == .data || kind == .hole && evenInHoles
        return !needsZeroes
      }
      if needsZeroes {
        let isWritten = try unsafe withZeroes(Int(piece.length)) { zeroes throws(StoreError) in
          try unsafe write(UnsafeRawBufferPointer(zeroes), piece, mayGrow: false)
        }
        // Else the file has become shorter meanwhile.
        if !isWritten { continue }
      }
      next = piece.upperBound
    }
  }

  /// The most zeroes that are written at once, if a block is not larger.
  private static var zeroesByteCountMax: UInt64 { 1 << 20 }

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
