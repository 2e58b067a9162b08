internal import Atomics
internal import Bytes
internal import Extents

/// Changes of a volume that a checkpoint could not merge: they belong to a node that cannot be read.
struct LeftOut {
  var volume: OpenVolume
  var changes: Overlay
  var damage: ExtentFSError
}

/// What cannot be merged is carried along: it stays in the volume's view and, so that the next opening has it too, each checkpoint
/// appends it to the journal again, behind its cut. The volume is read-only meanwhile, which keeps it from growing. What the
/// node had, where the changes say nothing, reads as an error; everything else of the volume, and all others, go on.
///
/// It may take an eighth of the journal. What is more ends the engine, whose journal keeps all of it.
extension CheckpointRunner {
  /// Appends what `left` says to the journal, where somebody will want it. Called when the checkpoint has said what becomes of the
  /// volumes, and before its first sync.
  ///
  /// The volumes are exclusive until the checkpoint has ended: what their writers appended from now on could come before what is
  /// older.
  func carry(_ left: [LeftOut], _ plan: CheckpointPlan) throws(ExtentFSError) -> Carried {
    var carried = Carried()
    var byteCount: UInt64 = 0
    do throws(ExtentFSError) {
      for item in left {
        let inode = item.volume.inode
        let record = plan.catalog.inodes[inode]
        let isGone = record.map { $0 == nil || $0?.kind == .deleted } ?? false
        guard !isGone, !plan.replacesContents.contains(inode) else {
          carried.retired += item.changes.physicalRuns
          item.volume.noteDamage(nil)
          continue
        }
        let isHeld = plan.held.contains { $0 === item.volume }
        if !isHeld { carried.exclusive.append(item.volume) }
        let newer = isHeld ? item.volume.activeChanges : item.volume.beginExclusive()
        var changes = item.changes
        // What came behind the cut stands in the journal already, and counts.
        newer.forEachRun(in: 0..<UInt64.max) { run in
          item.changes.forEachRun(in: run.positions) { old in
            if let block = old.value.physicalBlock {
              carried.retired.append(PhysicalRun(block: block, count: old.positions.length))
            }
            return true
          }
          changes.replace(run.positions, with: nil)
          return true
        }
        let isJournaled = record.map { $0?.isThrowaway == false } ?? item.volume.isJournaled
        if isJournaled { try append(changes, of: inode, &byteCount) }
        carried.changes[inode] = changes
        item.volume.noteDamage(item.damage)
      }
      for (inode, changes) in strayChanges { try append(changes, of: inode, &byteCount) }
    } catch {
      for volume in carried.exclusive { volume.endExclusive() }
      throw error
    }
    return carried
  }

  private func append(_ changes: Overlay, of inode: UInt64, _ byteCount: inout UInt64) throws(ExtentFSError) {
    for run in changes.runs {
      var next = run.positions
      while !next.isEmpty {
        var part = next
        let isAppended: Bool
        if let block = run.value.physicalBlock {
          part = next.lowerBound..<min(next.upperBound, next.lowerBound + JournalRing.recordBlocksMax)
          byteCount += UInt64(JournalFormat.mapByteCount(blockCount: Int(part.length)))
          try requireCarryRoom(byteCount)
          let first = block + (part.lowerBound - run.positions.lowerBound)
          isAppended = try appendMap(of: part, at: first, inode)
        } else {
          byteCount += UInt64(JournalFormat.mapByteCount(blockCount: 1))
          try requireCarryRoom(byteCount)
          isAppended =
            run.value == .hole
            ? try journal.appendUnmap(inode: inode, logical: part, isCarried: true) != nil
            : try journal.appendReserve(inode: inode, logical: part, isCarried: true) != nil
        }
        guard isAppended else { throw Self.tooMuchToCarry }
        next = part.upperBound..<next.upperBound
      }
    }
  }

  private func appendMap(
    of logical: Range<UInt64>, at block: UInt64, _ inode: UInt64
  ) throws(ExtentFSError) -> Bool {
    let sums = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: Int(logical.length))
    defer { unsafe sums.deallocate() }
    try unsafe checksums.getChecksums(of: PhysicalRun(block: block, count: logical.length), into: sums)
    return try unsafe journal.appendMap(
      inode: inode, logical: logical.lowerBound, physical: block, checksums: UnsafeBufferPointer(sums),
      isCarried: true) != nil
  }

  private func requireCarryRoom(_ byteCount: UInt64) throws(ExtentFSError) {
    guard byteCount <= carryByteCountMax.load(ordering: .relaxed) else { throw Self.tooMuchToCarry }
  }

  static var tooMuchToCarry: ExtentFSError {
    ExtentFSError(.tooMuchToCarry, "more was changed below nodes that cannot be read than the journal can keep")
  }
}

/// What a checkpoint carries along.
struct Carried {
  /// By inode.
  var changes: [UInt64: Overlay] = [:]
  /// The volumes whose writers wait for the checkpoint.
  var exclusive: [OpenVolume] = []
  /// Blocks of changes that nobody wants any more.
  var retired: [PhysicalRun] = []
}

extension Overlay {
  /// The blocks that it maps to.
  var physicalRuns: [PhysicalRun] {
    runs.compactMap { run in
      run.value.physicalBlock.map { PhysicalRun(block: $0, count: run.positions.length) }
    }
  }

  /// These changes, and `newer` ones, which count where both say something.
  func overlaid(by newer: Overlay) -> Overlay {
    if isEmpty { return newer }
    var all = self
    newer.forEachRun(in: 0..<UInt64.max) { run in
      all.replace(run.positions, with: run.value)
      return true
    }
    return all
  }
}
