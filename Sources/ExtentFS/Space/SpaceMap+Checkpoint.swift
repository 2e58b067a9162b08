internal import Devices
package import Extents

extension SpaceMap {
  /// The next superblock's trees reach these blocks, which were allocated.
  ///
  /// - Throws: `ExtentFSError` with `internalInconsistency` where they were not, or are committed already; `damaged` where their
  ///   group cannot be read.
  package func commit(_ run: PhysicalRun) throws(ExtentFSError) {
    let isDone = try withGroup(of: run) { state, group, positions throws(ExtentFSError) in
      guard group.isInUse(allOf: positions), !group.committed.containsAny(of: positions) else {
        throw ExtentFSError.internalInconsistency("blocks \(run.blocks) are mapped, and are free or mapped elsewhere")
      }
      state.noteChange(of: group)
      group.commit(positions)
      state.usedCount += UInt64(positions.count)
    }
    guard isDone else {
      throw ExtentFSError(.damaged, "blocks \(run.blocks) are to be mapped, and their group's bitmap cannot be read")
    }
  }

  /// The next superblock's trees no longer reach these blocks. They stay in use until `free`; for good, where their group cannot
  /// be read.
  ///
  /// - Throws: `ExtentFSError` with `damaged` where they were not committed: the bitmap on the device may be what is wrong.
  package func deferFree(_ run: PhysicalRun) throws(ExtentFSError) {
    try withGroup(of: run) { state, group, positions throws(ExtentFSError) in
      guard group.committed.containsAll(of: positions) else {
        throw ExtentFSError(.damaged, "blocks \(run.blocks) are freed, and the bitmap says that they are free already")
      }
      state.noteChange(of: group)
      group.release(positions)
      state.usedCount = state.usedCount.saturatingSubtract(UInt64(positions.count))
    }
  }

  /// Adds to `batch` the bitmaps that have changed since the last call, each for the slot that the last durable superblock does
  /// not use, and returns the records that have changed since the last call, those of checksum blocks included.
  ///
  /// Merging the records into the space tree allocates and releases nodes, and so changes bitmaps: the caller repeats
  /// both until nothing is returned. After an error the checkpoint has failed.
  package func writeDirty(_ batch: MetadataBatch) throws(ExtentFSError) -> [(group: UInt64, record: GroupRecord)] {
    let changed = state.withLock { state in
      state.changed.compactMap { group in group.takeForWriting().map { (number: group.number, bitmap: $0) } }
    }
    for (number, bitmap) in changed.sorted(by: { $0.number < $1.number }) { try write(bitmap, of: number, batch) }
    return records.takeChanged()
  }

  /// The groups whose records `writeDirty` would return, in order.
  package func dirtyGroups() -> [UInt64] {
    let bitmaps = state.withLock { state in state.changed.map(\.number) }
    return records.changedGroups.union(bitmaps).sorted()
  }

  private func write(_ bitmap: Bitmap, of number: UInt64, _ batch: MetadataBatch) throws(ExtentFSError) {
    let slot = 1 - (try records.record(of: number)?.bitmapSlot ?? geometry.freshRecord.bitmapSlot)
    let checksum = try unsafe batch.addBlock(geometry.bitmapBlock(ofGroup: number, slot: slot)) { bytes in
      unsafe bitmap.copy(to: bytes)
    }
    records.stage(number, fresh: geometry.freshRecord) { record in
      record.freeCount = UInt32(bitmap.count - bitmap.setCount)
      record.bitmapSlot = slot
      record.bitmapChecksum = checksum
    }
  }

  /// The checkpoint's superblock is durable. To be called before `ChecksumTable.didCommit`.
  package func didCommit() {
    records.didCommit()
    state.withLock { state in
      for group in state.changed { group.didCommit() }
      state.changed = []
      state.durableUsedCount = nil
    }
  }

  /// The checkpoint has failed: the committed sets are those of the last durable superblock again. To be called before
  /// `ChecksumTable.didFail`, and before the blocks that were allocated for the checkpoint are returned.
  package func didFail() {
    records.didFail()
    state.withLock { state in
      for group in state.changed { group.didFail() }
      state.changed = []
      if let used = state.durableUsedCount { state.usedCount = used }
      state.durableUsedCount = nil
    }
  }

  /// Which positions of a group are committed, and which are in use; nil where the group is not in memory.
  func bitmaps(ofGroup number: UInt64) -> (committed: Bitmap, inUse: Bitmap)? {
    state.withLock { state in state.groups[number].map { ($0.committed, $0.inUse) } }
  }
}

extension SpaceState {
  /// To be called before the running checkpoint changes `group`.
  mutating func noteChange(of group: SpaceGroup) {
    if durableUsedCount == nil { durableUsedCount = usedCount }
    if group.durable == nil { changed.append(group) }
  }
}
