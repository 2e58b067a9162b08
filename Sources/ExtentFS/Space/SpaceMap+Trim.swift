package import BlockStores
internal import Bytes
internal import Devices

/// The value of a run of blocks that were freed and not given back to the host since.
struct TrimMark: RunValue {
  func advanced(by count: UInt64) -> TrimMark { self }
}

extension SpaceMap {
  /// A free run, of aligned pieces of 1 MiB, whose storage the host may have back; nil where there is none now.
  ///
  /// Its blocks cannot be allocated until `didTrim` is called, whether the device could discard them or not. Nothing is
  /// handed out where free space is so short that somebody may need it meanwhile.
  package func nextTrim() -> PhysicalRun? { state.withLock { $0.takeTrim() } }

  /// How many blocks wait for `nextTrim`, at most: some may have been allocated again.
  package var trimmableBlockCount: UInt64 {
    state.withLock { $0.trims.runs.reduce(0) { $0 + $1.positions.length } }
  }

  /// The run that `nextTrim` gave is free again.
  package func didTrim(_ run: PhysicalRun) throws(ExtentFSError) { try returnUnused(run) }
}

extension SpaceState {
  private var pieceLength: UInt64 { Swift.max((1 << 20) >> geometry.blockSize.shift, 1) }
  /// The longest run handed out at once, in pieces.
  private static var longestTrim: UInt64 { 32 }

  /// Marks the pieces that `positions`, which have become free, have completed.
  mutating func markForTrim(_ positions: Range<Int>, of group: SpaceGroup) {
    let blocks = group.blocks(positions)
    var piece = blocks.lowerBound / pieceLength * pieceLength
    while piece < blocks.upperBound {
      if isFree(piece..<piece + pieceLength, in: group) { trims.replace(piece..<piece + pieceLength, with: TrimMark()) }
      piece += pieceLength
    }
  }

  mutating func takeTrim() -> PhysicalRun? {
    while let marked = trims.firstRun(endingAfter: 0)?.positions {
      var run = marked.lowerBound..<marked.lowerBound + pieceLength
      // A mark may be out of date, since allocation does not look at it.
      guard let number = geometry.group(of: run.lowerBound), let group = groups[number], isFree(run, in: group) else {
        trims.replace(run, with: nil)
        continue
      }
      // Who needs space meanwhile finds half of it.
      let pieceCount = min(Self.longestTrim, room(for: .data) / 2 / pieceLength)
      guard pieceCount > 0 else { return nil }
      while run.length < pieceCount * pieceLength, run.upperBound < marked.upperBound,
        isFree(run.upperBound..<run.upperBound + pieceLength, in: group)
      {
        run = run.lowerBound..<run.upperBound + pieceLength
      }
      trims.replace(run, with: nil)
      group.take(group.positions(run))
      freeCount = freeCount.minusOrZero(run.length)
      return PhysicalRun(block: run.lowerBound, count: run.length)
    }
    return nil
  }

  private func isFree(_ blocks: Range<UInt64>, in group: SpaceGroup) -> Bool {
    blocks.lowerBound >= group.firstBlock && blocks.upperBound <= group.firstBlock + geometry.blocksPerGroup
      && group.isFree(group.positions(blocks))
  }
}
