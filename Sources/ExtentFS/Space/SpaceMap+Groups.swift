internal import Bytes
internal import Devices
internal import Extents
internal import Glibc

extension SpaceMap {
  /// Calls `body`, under the lock, with the group of `run` and the run's positions in it; reads the group first where it is
  /// not in memory. A run lies in one group, since each begins with blocks that are in no run.
  ///
  /// - Returns: false, without a call, where the group cannot be read.
  /// - Throws: `ExtentFSError` with `damaged` where the run is not all blocks for data and nodes, and what `body` throws.
  @discardableResult
  func withGroup(
    of run: PhysicalRun,
    _ body: (inout SpaceState, SpaceGroup, Range<Int>) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) -> Bool {
    let (end, overflow) = run.block.addingReportingOverflow(run.count)
    guard !overflow, end <= blockCount, run.count > 0, let number = geometry.group(of: run.block),
      geometry.indexInGroup(of: run.block) >= StoreGeometry.metadataBlocksPerGroup,
      geometry.indexInGroup(of: run.block) + run.count <= geometry.blocksPerGroup
    else {
      throw ExtentFSError(.damaged, "\(run.count) blocks from \(run.block) on are not all for data and nodes")
    }
    let start = Int(geometry.indexInGroup(of: run.block))
    let positions = start..<start + Int(run.count)
    // A group that was read may have left memory again meanwhile.
    while true {
      if try change(number, positions, body) { return true }
      guard try slowPath.withLock({ () throws(ExtentFSError) in try read(number) }) else { return false }
    }
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
        while state.nextGroupToRead < state.groupCount,
          state.groups[state.nextGroupToRead] != nil || state.isUnreadable(state.nextGroupToRead)
        {
          state.nextGroupToRead += 1
        }
        return state.nextGroupToRead < state.groupCount ? state.nextGroupToRead : nil
      }
      guard let next else { return false }
      if let record = try? records.record(of: next), record.freeCount == 0 {
        state.withLock { $0.nextGroupToRead = next + 1 }
        continue
      }
      if try read(next) { return true }
    }
  }

  /// Reads a group's bitmap unless it is in memory; false where it cannot be read. Called under `slowPath`.
  func read(_ number: UInt64) throws(ExtentFSError) -> Bool {
    if let isThere = state.withLock({ state -> Bool? in
      state.groups[number] != nil ? true : state.isUnreadable(number) ? false : nil
    }) {
      return isThere
    }
    do throws(ExtentFSError) {
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
      return true
    } catch {
      guard error.isUnreadable else { throw error }
      try pass(over: number, error)
      return false
    }
  }

  /// Takes a group out of use that cannot be read, and all others of which the records are in the same place. What is free is counted
  /// anew, without them. Called under `slowPath`.
  private func pass(over number: UInt64, _ error: ExtentFSError) throws(ExtentFSError) {
    var unreadable = state.withLock { $0.unreadable }
    unreadable.append(number..<number + 1)
    var recorded: [(group: UInt64, freeCount: UInt64)] = []
    let groupCount = self.groupCount
    try records.forEach(
      { group, record in
        if group < groupCount { recorded.append((group, UInt64(record.freeCount))) }
      },
      unreadable: { groups, _ in
        if groups.contains(number) { unreadable.append(groups.clamped(to: 0..<groupCount)) }
      })
    let others = unreadable.reduce(0) { $0 &+ $1.length } &- 1
    damage.note(
      "group \(number)" + (others > 0 ? " and \(others) more" : ""), key: "group \(number)", error,
      "none of its blocks is allocated or freed")
    state.withLock { $0.pass(over: unreadable, recorded) }
  }

  /// Refuses a store of which no group can be read: nobody knows what is free in it, so that nothing can be written.
  func requireReadableGroup() throws(ExtentFSError) {
    if state.withLock({ $0.unreadable.isEmpty }) {
      guard groupCount > 0 else { return }
      do throws(ExtentFSError) {
        _ = try records.record(of: 0)
        return
      } catch {
        guard error.isUnreadable else { throw error }
      }
    }
    try slowPath.withLock { () throws(ExtentFSError) in
      while state.withLock({ $0.groups.isEmpty }) {
        if try readNextGroup() { return }
        if try grow() { continue }
        guard let damage = damage.all.first else { return }
        throw ExtentFSError(.damaged, "it is unknown which blocks are free: \(damage.part): \(damage.facts)")
      }
    }
  }

  /// Whether the blocks of `run` can be committed and released: false where their group cannot be read.
  func canChange(_ run: PhysicalRun) throws(ExtentFSError) -> Bool {
    try withGroup(of: run) { _, _, _ in }
  }

  /// Whether there is a group that cannot be read.
  var hasUnreadableGroups: Bool { state.withLock { !$0.unreadable.isEmpty } }

  /// Calls `body` with runs, in no order, that have all blocks of `range` which the last durable superblock's trees lead to. Of groups
  /// that cannot be read they have all blocks.
  func forEachUsed(in range: Range<UInt64>, _ body: (Range<UInt64>) -> Void) throws(ExtentFSError) {
    let range = range.clamped(to: geometry.headBlockCount..<max(blockCount, geometry.headBlockCount))
    let groups = 0..<groupCount
    // What has no record was never used.
    var used: [UInt64] = []
    var lost: [Range<UInt64>] = []
    try records.forEach(
      { group, _ in if groups.contains(group) { used.append(group) } },
      unreadable: { unreadable, _ in lost.append(unreadable.clamped(to: groups)) })
    for group in used {
      let first = geometry.firstBlock(ofGroup: group)
      let blocks = (first..<first + geometry.blocksPerGroup).clamped(to: range)
      guard !blocks.isEmpty else { continue }
      let bitmap = try slowPath.withLock { () throws(ExtentFSError) -> Bitmap? in
        guard try read(group) else { return nil }
        return state.withLock { $0.groups[group].map { $0.durable ?? $0.committed } }
      }
      guard let bitmap else {
        lost.append(group..<group + 1)
        continue
      }
      let end = Int(blocks.upperBound - first)
      var position = max(Int(blocks.lowerBound - first), Int(StoreGeometry.metadataBlocksPerGroup))
      while let lower = bitmap.firstSet(from: position, before: end) {
        position = bitmap.firstClear(from: lower, before: end) ?? end
        body(first + UInt64(lower)..<first + UInt64(position))
      }
    }
    for groups in lost where !groups.isEmpty {
      let blocks = geometry.firstBlock(ofGroup: groups.lowerBound)..<geometry.firstBlock(ofGroup: groups.upperBound)
      let lostBlocks = blocks.clamped(to: range)
      if !lostBlocks.isEmpty { body(lostBlocks) }
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
      throw ExtentFSError(.damaged, "the bitmap and the record of group \(number) disagree")
    }
    return bitmap
  }

  /// The device grows up to the limit, by less where the host is short of space: by half of what the groups have, at least
  /// 1 MiB and at most 8 MiB, so that a new store is small on its host; or by a sixteenth of all where that is more, up to
  /// 64 MiB. False where it cannot. Called under `slowPath`.
  func grow() throws(ExtentFSError) -> Bool {
    guard let limit = state.withLock({ $0.limit }), let old = try growthStart(), limit > old else { return false }
    let smallest: UInt64 = Swift.max((1 << 20) >> geometry.blockSize.shift, 1)
    let usual = Swift.min(Swift.max(old.saturatingSubtract(geometry.headBlockCount) / 2, smallest), 8 * smallest)
    var step = min(limit - old, min(Swift.max(usual, old / 16), 64 * smallest))
    while true {
      do throws(DeviceError) {
        try device.grow(to: geometry.blockSize.offset(of: old + step))
        extend(to: old + step, usableFrom: old)
        return true
      } catch {
        guard error.isLackOfSpace || error.errno == EOPNOTSUPP else { throw ExtentFSError(error) }
        guard step > smallest else { return false }
        step = Swift.max(step / 4, smallest)
      }
    }
  }

  /// From which block on the device would grow by blocks that can be used: its end, or that of the last group where that cannot be
  /// read. Nil where nothing is known of the group that would come then.
  private func growthStart() throws(ExtentFSError) -> UInt64? {
    let (blockCount, start, isSound) = state.withLock { ($0.blockCount, $0.growthStart, $0.unreadable.isEmpty) }
    // Only where something cannot be read does it cost a look.
    guard !isSound, let number = geometry.group(of: start) else { return blockCount }
    do throws(ExtentFSError) {
      _ = try records.record(of: number)
      return start
    } catch {
      guard error.isUnreadable else { throw error }
      return nil
    }
  }

  /// The device has become `blockCount` blocks long, of which those from `start` on can be used.
  private func extend(to blockCount: UInt64, usableFrom start: UInt64) {
    state.withLock { state in
      let usable = geometry.usableBlockCount(inDeviceOf: start)
      state.lookAgain(from: state.blockCount)
      state.blockCount = blockCount
      state.noteLength()
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

  /// Takes what is free of `blocks`, which lie in one group, out of use until the store is opened again.
  func withhold(_ blocks: Range<UInt64>) {
    state.withLock { state in
      guard let number = geometry.group(of: blocks.lowerBound), let group = state.groups[number] else { return }
      let before = group.freeCount
      group.claim(group.positions(blocks).clamped(to: 0..<group.usableEnd))
      state.freeCount = state.freeCount.saturatingSubtract(UInt64(before - group.freeCount))
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
