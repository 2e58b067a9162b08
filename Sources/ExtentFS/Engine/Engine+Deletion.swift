internal import BlockStores
internal import Devices

/// The inodes whose trees are to be given up.
struct Deletions {
  /// Those that are known, in the order of their turn.
  var inodes: [UInt64] = []
  /// Whether all of them are known: those that the catalog had when the store was opened were looked for.
  var isComplete = false
  /// How many there are whose trees cannot be read, and stay as they are.
  var damagedCount = 0
}

/// What is deleted and has not been given back yet.
package struct DeletionBacklog: Sendable, Hashable {
  /// How many volumes and snapshots.
  package var volumeCount: Int
  /// How many of those have damaged trees, and keep what they have.
  package var damagedCount: Int
}

extension Engine {
  /// Has the trees of `inodes` given up, which were deleted.
  func giveBack(_ inodes: [UInt64]) {
    // Those of an earlier opening are looked for once, and these with them, where that was not done yet.
    state.withLock { state in
      guard state.deletions.isComplete else { return }
      // The search may have found them meanwhile.
      let known = Set(state.deletions.inodes)
      state.deletions.inodes += inodes.filter { !known.contains($0) }
    }
    checkpointer.wake()
  }

  /// What is deleted and has not been given back yet.
  package func deletionBacklog() throws(ExtentFSError) -> DeletionBacklog {
    try completeDeletions()
    return state.withLock {
      DeletionBacklog(
        volumeCount: $0.deletions.inodes.count + $0.deletions.damagedCount, damagedCount: $0.deletions.damagedCount)
    }
  }

  /// Looks for the deleted inodes where there may be some that are not known: deleted ones, and throwaways of an earlier opening.
  private func completeDeletions() throws(ExtentFSError) {
    guard state.withLock({ !$0.deletions.isComplete }) else { return }
    try checkpoints.withLock { () throws(ExtentFSError) in
      let (superblock, open) = state.withLock { ($0.superblock, Set($0.volumes.keys)) }
      var found = Deletions(isComplete: true)
      if superblock.transientCount > 0 {
        try Catalog(nodes: nodes, superblock: superblock).forEachReadable({ error in
          self.noteUnreadableInodes(error)
          found.damagedCount = 1
        }) { inode, record in
          if record.isTransient, !open.contains(inode) { found.inodes.append(inode) }
          return true
        }
      }
      state.withLock { $0.deletions = found }
    }
  }

  /// Gives up a bounded part of what is deleted: one checkpoint. False where nothing was left to do.
  ///
  /// A crash at any point leaves a tree of which the rest is given up later.
  package func dropDeleted() throws(ExtentFSError) -> Bool {
    try completeDeletions()
    guard state.withLock({ !$0.deletions.inodes.isEmpty }) else { return false }
    return try checkpoints.withLock { () throws(ExtentFSError) in
      try journal.requireUsable()
      var plan = CheckpointPlan(makeCatalogEditor())
      try requireCheckpointRoom()
      let turn = try nextDeletions(plan.catalog)
      guard !turn.isEmpty else { return false }
      let catalog = plan.catalog
      plan.finish = { writer throws(ExtentFSError) in
        var work = DropWork(nodesLeft: self.options.deletionStepNodeCount)
        for (inode, record) in turn {
          var rest = record
          let before = work
          rest.extents = try TreeMerge(cache: self.nodes, writer: writer).drop(record.extents, &work)
          rest.mappedBlocks = rest.mappedBlocks.minusOrZero(work.mappedCount &- before.mappedCount)
          rest.reservedBlocks = rest.reservedBlocks.minusOrZero(work.reservedCount &- before.reservedCount)
          try catalog.giveUp(rest, inode, writer)
        }
      }
      try write(plan)
      let done = Set(turn.map(\.inode).filter { catalog.inodes[$0] == .some(nil) })
      state.withLock { $0.deletions.inodes.removeAll(where: done.contains) }
      return true
    }
  }
}

extension Engine {
  /// The deleted inodes whose turn it is, as many as one step can begin with. What is damaged must be found before the checkpoint
  /// begins, which it would end for good: so the step is rehearsed, and without those that are damaged once more.
  private func nextDeletions(
    _ catalog: CatalogEditor<Device>
  ) throws(ExtentFSError) -> [(inode: UInt64, record: InodeRecord)] {
    while true {
      var turn: [(inode: UInt64, record: InodeRecord)] = []
      var work = DropWork(nodesLeft: options.deletionStepNodeCount)
      let rehearsal = DropRehearsal(ReferenceCounts(nodes, root: catalog.superblock.shared))
      var damaged: UInt64?
      for inode in state.withLock({ $0.deletions.inodes }) where work.nodesLeft > 0 && damaged == nil {
        do throws(ExtentFSError) {
          guard let record = try catalog.record(of: inode), record.isTransient else {
            state.withLock { state in state.deletions.inodes.removeAll { $0 == inode } }
            continue
          }
          _ = try TreeMerge(cache: nodes, writer: rehearsal).drop(record.extents, &work)
          turn.append((inode, record))
        } catch {
          guard error.isUnreadable else { throw error }
          damage.note("the deleted inode \(inode)", error, "what it has is not given back")
          damaged = inode
        }
      }
      guard let damaged else { return turn }
      state.withLock { state in
        state.deletions.inodes.removeAll { $0 == damaged }
        state.deletions.damagedCount += 1
      }
    }
  }
}

/// Goes through a drop without changing anything, to see whether it can be done.
private final class DropRehearsal<Device: BlockDevice>: TreeWriter {
  let generation: UInt64 = 1
  private let references: ReferenceCounts<Device>

  init(_ references: ReferenceCounts<Device>) { self.references = references }

  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { try references.isShared(block) }
  func allocateBlock() throws(ExtentFSError) -> UInt64 { 1 }
  func write(_ node: Node) throws(ExtentFSError) {}
  func released(_ block: UInt64) throws(ExtentFSError) { _ = try references.release(node: block) }
  func replaced(_ run: PhysicalRun) throws(ExtentFSError) {}
}
