internal import Bytes
internal import Devices
internal import Extents

/// Storage that the host holds for free blocks, though nothing marks them for trimming: what was freed shortly before a process died or
/// closed the store. The device is asked for it, part by part.
extension SpaceMap {
  /// The longest part that is looked at at once, in bytes.
  private static var partByteCount: UInt64 { 128 << 20 }

  /// The next part, blocks for data and nodes of one group, that nobody has looked at since the store was opened, or the device grew;
  /// nil where there is none.
  func nextReclaimPart() -> Range<UInt64>? {
    state.withLock { state in
      let part = state.reclaimPart(from: state.reclaimPosition, upTo: Self.partByteCount)
      if let part { state.reclaimPosition = part.upperBound }
      return part
    }
  }

  /// The first part from `block` on; nil at the device's end.
  func reclaimPart(from block: UInt64) -> Range<UInt64>? {
    state.withLock { $0.reclaimPart(from: block, upTo: Self.partByteCount) }
  }

  /// Ends the run of free blocks that is kept for nodes, so that it can be given back too.
  func endMetadataRun() { state.withLock { $0.freeMetadataRun() } }

  /// Marks for trimming what is free of `part` and has storage at the host, in small pieces.
  ///
  /// - Parameter isUnknown: whether the device is not asked, and is taken to hold storage for all.
  func markAllocated(in part: Range<UInt64>, isUnknown: Bool) throws(ExtentFSError) {
    let bytes = geometry.bytes(of: part)
    let runs = isUnknown ? [bytes] : try device.allAllocatedRuns(in: bytes)
    guard !runs.isEmpty, let number = geometry.group(of: part.lowerBound) else { return }
    try slowPath.withLock { () throws(ExtentFSError) in
      let isNew = state.withLock { $0.groups[number] == nil }
      if isNew, let record = try? records.record(of: number), record.freeCount == 0 { return }
      guard try read(number) else { return }
      state.withLock { state in
        guard let group = state.groups[number] else { return }
        if isNew { group.isForTrimsOnly = true }
        for run in runs { state.mark(allocated: run, of: group) }
      }
    }
  }

  /// How many bytes of storage the host holds for `run`.
  func allocatedByteCount(_ run: PhysicalRun) throws(ExtentFSError) -> UInt64 {
    try device.allAllocatedRuns(in: geometry.bytes(of: run.blocks)).reduce(0) { $0 + $1.length }
  }

  /// To be called when what was marked in `part` is trimmed: its group leaves memory, where nobody else needs it.
  func didReclaim(_ part: Range<UInt64>) {
    // Who reads a group and then looks at it does both under this lock.
    slowPath.withLock {
      state.withLock { state in
        guard let number = geometry.group(of: part.lowerBound), let group = state.groups[number] else { return }
        let blocks = group.firstBlock..<group.firstBlock + geometry.blocksPerGroup
        if state.trims[.small].first(in: blocks) == nil { state.remove(group) }
      }
    }
  }
}

extension SpaceState {
  /// The device has grown from `block` on, and has storage there.
  mutating func lookAgain(from block: UInt64) {
    let pieceLength = trims[.small].pieceLength
    reclaimPosition = min(reclaimPosition, block / pieceLength * pieceLength)
  }

  fileprivate func reclaimPart(from block: UInt64, upTo byteCount: UInt64) -> Range<UInt64>? {
    guard let number = geometry.group(of: Swift.max(block, geometry.headBlockCount)), number < groupCount else {
      return nil
    }
    let first = geometry.firstBlock(ofGroup: number)
    let start = Swift.max(block, first + StoreGeometry.metadataBlocksPerGroup)
    let pieceLength = trims[.small].pieceLength
    // Between two parts no piece is cut.
    let longest = (start + byteCount >> geometry.blockSize.shift) / pieceLength * pieceLength
    let end = min(longest, first + geometry.blocksPerGroup, blockCount)
    return start < end ? start..<end : nil
  }

  /// Marks the whole pieces of `group` that are free and have some of `bytes`.
  fileprivate mutating func mark(allocated bytes: Range<UInt64>, of group: SpaceGroup) {
    let shift = geometry.blockSize.shift
    let lastBlock = (bytes.upperBound - 1) >> shift
    let pieces = trims[.small].piecesTouched(by: bytes.lowerBound >> shift..<lastBlock + 1)
    let length = trims[.small].pieceLength
    var start = pieces.lowerBound
    while start < pieces.upperBound {
      var end = start
      while end < pieces.upperBound, group.isFree(blocks: end..<end + length) { end += length }
      if end > start { trims.mark(smallPieces: start..<end) }
      start = end + length
    }
  }
}

extension StoreGeometry {
  fileprivate func bytes(of blocks: Range<UInt64>) -> Range<UInt64> {
    blockSize.offset(of: blocks.lowerBound)..<blockSize.offset(of: blocks.upperBound)
  }
}

extension BlockDevice {
  /// All runs of `range` for which the system holds storage.
  fileprivate func allAllocatedRuns(in range: Range<UInt64>) throws(ExtentFSError) -> [Range<UInt64>] {
    var all: [Range<UInt64>] = []
    var start = range.lowerBound
    do throws(DeviceError) {
      while start < range.upperBound {
        let runs = try allocatedRuns(in: start..<range.upperBound)
        guard let end = runs.last?.upperBound else { break }
        all += runs
        start = end
      }
    } catch {
      throw ExtentFSError(error)
    }
    return all
  }
}
