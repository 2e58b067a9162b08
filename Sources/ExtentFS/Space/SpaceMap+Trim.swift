internal import Bytes
package import Extents

/// How long a free run must be to be given back to the host.
package enum TrimSize {
  /// Aligned pieces of 64 KiB: what a store gives back that nobody uses now.
  case small
  /// Aligned pieces of 1 MiB: what is worth a call to the host while others are waiting for it.
  case large

  fileprivate var byteCount: UInt64 { self == .small ? 64 << 10 : 1 << 20 }
}

extension SpaceMap {
  /// A free run, of aligned pieces of `size`, whose storage the host may have back; nil where there is none now.
  ///
  /// Its blocks cannot be allocated until `didTrim` is called, whether the device could discard them or not. Nothing is
  /// handed out where free space is so short that somebody may need it meanwhile.
  ///
  /// - Parameter blocks: where it is looked for.
  package func nextTrim(_ size: TrimSize, in blocks: Range<UInt64> = 0..<UInt64.max) -> PhysicalRun? {
    state.withLock { $0.takeTrim(size, in: blocks) }
  }

  /// How many blocks wait for `nextTrim`, at most: some may have been allocated again.
  package func trimmableBlockCount(_ size: TrimSize) -> UInt64 { state.withLock { $0.trims[size].blockCount } }

  /// The run that `nextTrim` gave is free again.
  package func didTrim(_ run: PhysicalRun) throws(ExtentFSError) { try free(run, isHeld: false) }
}

/// The value of a run of blocks that were freed and not given back to the host since.
struct TrimMark: RunValue {
  func advanced(by count: UInt64) -> TrimMark { self }
}

/// Aligned pieces that were free when they were marked; allocation does not look at the marks.
struct TrimMarks {
  let pieceLength: UInt64
  private var runs = RunMap<TrimMark>()
  /// How many blocks the marked pieces have.
  private(set) var blockCount: UInt64 = 0

  /// - Parameter discardByteCount: what the device gives back alone; smaller pieces would be marked and asked for in vain.
  fileprivate init(_ size: TrimSize, in geometry: StoreGeometry, discardByteCount: UInt64) {
    let byteCount = Swift.max(size.byteCount, Swift.min(discardByteCount, Self.byteCountMax))
    pieceLength = Swift.max(byteCount >> geometry.blockSize.shift, 1)
  }

  /// A piece lies in one group, and groups have 8 MiB at least, those of tests too.
  private static var byteCountMax: UInt64 { 4 << 20 }

  /// The first run of marked pieces that lie in `blocks`.
  func first(in blocks: Range<UInt64>) -> Range<UInt64>? {
    let start = blocks.lowerBound / pieceLength * pieceLength
    let lower = start < blocks.lowerBound ? start + pieceLength : start
    let upper = blocks.upperBound / pieceLength * pieceLength
    guard lower < upper, let found = runs.firstRun(endingAfter: lower)?.positions.clamped(to: lower..<upper) else {
      return nil
    }
    return found.isEmpty ? nil : found
  }

  /// Marks `pieces`, which are whole and free.
  mutating func mark(pieces: Range<UInt64>) {
    blockCount += pieces.length - markedCount(in: pieces)
    runs.replace(pieces, with: TrimMark())
  }

  /// Marks the pieces that `freed`, whose blocks have become free, has completed; false where there are none.
  mutating func mark(_ freed: Range<UInt64>, isFree: (Range<UInt64>) -> Bool) -> Bool {
    // All pieces between the first and the last one lie within `freed`.
    var pieces = piecesTouched(by: freed)
    if !isFree(pieces.lowerBound..<pieces.lowerBound + pieceLength) {
      pieces = pieces.lowerBound + pieceLength..<pieces.upperBound
    }
    if !pieces.isEmpty, !isFree(pieces.upperBound - pieceLength..<pieces.upperBound) {
      pieces = pieces.lowerBound..<pieces.upperBound - pieceLength
    }
    if pieces.isEmpty { return false }
    mark(pieces: pieces)
    return true
  }

  /// Takes the marks off all pieces that any of `blocks` belongs to.
  mutating func unmark(_ blocks: Range<UInt64>) {
    let pieces = piecesTouched(by: blocks)
    blockCount -= markedCount(in: pieces)
    runs.replace(pieces, with: nil)
  }

  private func markedCount(in pieces: Range<UInt64>) -> UInt64 {
    var count: UInt64 = 0
    runs.forEachRun(in: pieces) { run in
      count += run.positions.length
      return true
    }
    return count
  }

  /// The whole pieces that any of `blocks` belongs to.
  func piecesTouched(by blocks: Range<UInt64>) -> Range<UInt64> {
    let end = blocks.upperBound + pieceLength - 1
    return blocks.lowerBound / pieceLength * pieceLength..<end / pieceLength * pieceLength
  }
}

/// The marks of both sizes. A large piece may have small ones without a mark, which the host has got back already.
struct Trims {
  private var small: TrimMarks
  private var large: TrimMarks

  init(in geometry: StoreGeometry, discardByteCount: UInt64) {
    small = TrimMarks(.small, in: geometry, discardByteCount: discardByteCount)
    large = TrimMarks(.large, in: geometry, discardByteCount: discardByteCount)
  }

  subscript(size: TrimSize) -> TrimMarks { size == .small ? small : large }

  mutating func mark(_ freed: Range<UInt64>, isFree: (Range<UInt64>) -> Bool) {
    // Whoever completes a large piece completes a small one of it.
    if small.mark(freed, isFree: isFree) { _ = large.mark(freed, isFree: isFree) }
  }

  /// Marks `pieces`, small ones that are free and not new so: what a busy store keeps for itself is only what it freed lately.
  mutating func mark(smallPieces pieces: Range<UInt64>) { small.mark(pieces: pieces) }

  /// Takes the marks off `blocks`, which the host gets back.
  mutating func unmark(_ blocks: Range<UInt64>) {
    small.unmark(blocks)
    large.unmark(blocks)
  }

  /// Takes the marks of one size off `blocks`, of which no piece of that size is free any more; smaller ones may be.
  mutating func unmarkStale(_ blocks: Range<UInt64>, of size: TrimSize) {
    if size == .small { unmark(blocks) } else { large.unmark(blocks) }
  }
}

extension SpaceState {
  /// The longest run handed out at once, in bytes.
  private static var longestTrim: UInt64 { 32 << 20 }

  /// Marks the pieces that `positions`, which have become free, have completed.
  mutating func markForTrim(_ positions: Range<Int>, of group: SpaceGroup) {
    trims.mark(group.blocks(positions)) { group.isFree(blocks: $0) }
  }

  mutating func takeTrim(_ size: TrimSize, in blocks: Range<UInt64>) -> PhysicalRun? {
    let pieceLength = trims[size].pieceLength
    while let marked = trims[size].first(in: blocks) {
      var run = marked.lowerBound..<marked.lowerBound + pieceLength
      guard let number = geometry.group(of: run.lowerBound), let group = groups[number] else {
        trims.unmark(run)
        continue
      }
      // A mark may be out of date, since allocation does not look at it.
      if !group.isFree(blocks: run) {
        let next = group.firstFree(in: run.upperBound..<marked.upperBound) / pieceLength * pieceLength
        trims.unmarkStale(run.lowerBound..<max(run.upperBound, next), of: size)
        continue
      }
      // Who needs space meanwhile finds half of it.
      let longest = min(Self.longestTrim >> geometry.blockSize.shift, room(for: .data) / 2)
      guard longest >= pieceLength else { return nil }
      while run.length + pieceLength <= longest, run.upperBound < marked.upperBound,
        group.isFree(blocks: run.upperBound..<run.upperBound + pieceLength)
      {
        run = run.lowerBound..<run.upperBound + pieceLength
      }
      trims.unmark(run)
      group.takeForTrim(group.positions(run))
      freeCount = freeCount.saturatingSubtract(run.length)
      return PhysicalRun(block: run.lowerBound, count: run.length)
    }
    return nil
  }
}
