internal import BlockStores
internal import Bytes
internal import Devices

extension SpaceMap {
  /// Calls `body`, under the lock, with the group of `run` and the run's positions in it; reads the group first where it is
  /// not in memory. A run lies in one group, since each begins with blocks that are in no run.
  ///
  /// - Throws: `ExtentFSError` with `damaged` where the run is not all blocks for data and nodes, and what `body` throws.
  func withGroup(
    of run: PhysicalRun,
    _ body: (inout SpaceState, SpaceGroup, Range<Int>) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    let (end, overflow) = run.block.addingReportingOverflow(run.count)
    guard !overflow, end <= blockCount, run.count > 0, let number = geometry.group(of: run.block),
      geometry.indexInGroup(of: run.block) >= StoreGeometry.metadataBlocksPerGroup,
      geometry.indexInGroup(of: run.block) + run.count <= geometry.blocksPerGroup
    else {
      throw ExtentFSError(.damaged, "\(run.count) blocks from \(run.block) on are not all for data and nodes")
    }
    let start = Int(geometry.indexInGroup(of: run.block))
    let positions = start..<start + Int(run.count)
    if try change(number, positions, body) { return }
    try slowPath.withLock { _ throws(ExtentFSError) in try read(number) }
    _ = try change(number, positions, body)
  }

  private func change(
    _ number: UInt64, _ positions: Range<Int>,
    _ body: (inout SpaceState, SpaceGroup, Range<Int>) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) -> Bool {
    try state.withLock { state throws(ExtentFSError) in
      guard let group = state.groups[number] else { return false }
      try body(&state, group, positions)
      return true
    }
  }

  /// Reads the next group that may have a free block; false where all are in memory. Called under `slowPath`.
  func readNextGroup() throws(ExtentFSError) -> Bool {
    while true {
      let next = state.withLock { state -> UInt64? in
        while state.nextGroupToRead < state.groupCount, state.groups[state.nextGroupToRead] != nil {
          state.nextGroupToRead += 1
        }
        return state.nextGroupToRead < state.groupCount ? state.nextGroupToRead : nil
      }
      guard let next else { return false }
      if let record = try records.record(of: next), record.freeCount == 0 {
        state.withLock { $0.nextGroupToRead = next + 1 }
        continue
      }
      try read(next)
      return true
    }
  }

  /// Reads a group's bitmap unless it is in memory. Called under `slowPath`.
  private func read(_ number: UInt64) throws(ExtentFSError) {
    guard state.withLock({ $0.groups[number] == nil }) else { return }
    let committed = try readBitmap(number)
    try state.withLock { state throws(ExtentFSError) in
      let end = state.usableEnd(ofGroup: number)
      guard !committed.containsAny(of: end..<committed.count) else {
        throw ExtentFSError(.damaged, "the bitmap of group \(number) has blocks past the device's end")
      }
      state.insert(
        SpaceGroup(
          number: number, firstBlock: geometry.firstBlock(ofGroup: number), committed: committed, usableEnd: end))
    }
  }

  private func readBitmap(_ number: UInt64) throws(ExtentFSError) -> Bitmap {
    let metadata = 0..<Int(StoreGeometry.metadataBlocksPerGroup)
    guard let record = try records.record(of: number) else { return geometry.freshBitmap }
    let block = geometry.bitmapBlock(ofGroup: number, slot: record.bitmapSlot)
    let bitmap = try unsafe device.withMetadataBlock(
      block, geometry.blockSize, checksum: record.bitmapChecksum
    ) { bytes in unsafe Bitmap(bytes: bytes) }
    guard bitmap.containsAll(of: metadata), bitmap.count - bitmap.setCount == Int(record.freeCount) else {
      throw ExtentFSError(.damaged, "the bitmap of group \(number) does not fit the group's record")
    }
    return bitmap
  }

  /// The device grows by a sixteenth, but from 8 to 64 MiB, up to the limit; by less where the host is short of space. False where it cannot. Called under `slowPath`.
  func grow() throws(ExtentFSError) -> Bool {
    let old = blockCount
    guard let limit, limit > old else { return false }
    let smallest: UInt64 = Swift.max((1 << 20) >> geometry.blockSize.shift, 1)
    let shift = geometry.blockSize.shift
    var step = min(limit - old, min(Swift.max((8 << 20) >> shift, old / 16), (64 << 20) >> shift))
    while true {
      do throws(DeviceError) {
        try device.grow(to: geometry.blockSize.offset(of: old + step))
        extend(to: old + step)
        return true
      } catch {
        guard error.isLackOfSpace else { throw ExtentFSError(error) }
        guard step > smallest else { return false }
        step = Swift.max(step / 4, smallest)
      }
    }
  }

  /// The device has become `blockCount` blocks long.
  private func extend(to blockCount: UInt64) {
    state.withLock { state in
      let usable = geometry.usableBlockCount(inDeviceOf: state.blockCount)
      state.blockCount = blockCount
      state.freeCount += geometry.usableBlockCount(inDeviceOf: blockCount) - usable
      // Only the last group may have reached past the device's end.
      if let last = state.ordered.last {
        let start = last.usableEnd
        last.extend(to: state.usableEnd(ofGroup: last.number))
        // It was allocated at the host, so that it is worth giving back while nothing needs it.
        if start < last.usableEnd { state.markForTrim(start..<last.usableEnd, of: last) }
      }
    }
  }
}

extension StoreGeometry {
  /// The bitmap of a group that was never used.
  var freshBitmap: Bitmap {
    var bitmap = Bitmap(count: Int(blocksPerGroup))
    bitmap.insert(0..<Int(Self.metadataBlocksPerGroup))
    return bitmap
  }

  /// The record of a group that was never used; it is in no tree.
  var freshRecord: GroupRecord {
    GroupRecord(freeCount: UInt32(blocksPerGroup - Self.metadataBlocksPerGroup), bitmapChecksum: 0)
  }
}
