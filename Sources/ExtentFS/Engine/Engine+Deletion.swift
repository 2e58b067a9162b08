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
  /// Has the deleted inodes of the catalog looked for.
  func searchDeletions() {
    state.withLock { $0.deletions.isComplete = false }
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
      var found: [UInt64] = []
      if superblock.transientCount > 0 {
        try Catalog(nodes: nodes, superblock: superblock).forEach { inode, record in
          if record.isTransient, !open.contains(inode) { found.append(inode) }
          return true
        }
      }
      state.withLock { $0.deletions = Deletions(inodes: found, isComplete: true) }
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
      var turn: [(inode: UInt64, record: InodeRecord)] = []
      var work = DropWork(nodesLeft: options.deletionStepNodeCount)
      let waiting = state.withLock { $0.deletions.inodes }
      for inode in waiting where work.nodesLeft > 0 {
        // What is damaged must be found before the checkpoint begins, which it would end for good.
        do throws(ExtentFSError) {
          guard let record = try plan.catalog.record(of: inode) else { continue }
          let rehearsal = DropRehearsal(ReferenceCounts(nodes, root: plan.catalog.superblock.shared))
          _ = try TreeMerge(cache: nodes, writer: rehearsal).drop(record.extents, &work)
          turn.append((inode, record))
        } catch {
          guard error.code == .damaged else { throw error }
          state.withLock { state in
            state.deletions.inodes.removeAll { $0 == inode }
            state.deletions.damagedCount += 1
          }
        }
      }
      guard !turn.isEmpty else { return false }
      let catalog = plan.catalog
      plan.finish = { writer throws(ExtentFSError) in
        var work = DropWork(nodesLeft: self.options.deletionStepNodeCount)
        for (inode, record) in turn {
          var rest = record
          let before = work
          rest.extents = try TreeMerge(cache: self.nodes, writer: writer).drop(record.extents, &work)
          rest.mappedBlocks = rest.mappedBlocks.minusOrZero(work.mappedCount - before.mappedCount)
          rest.reservedBlocks = rest.reservedBlocks.minusOrZero(work.reservedCount - before.reservedCount)
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

/// Goes through a drop without changing anything, to see whether it can be done.
private final class DropRehearsal<Device: BlockDevice>: TreeWriter {
  let generation: UInt64 = 1
  private let references: ReferenceCounts<Device>

  init(_ references: ReferenceCounts<Device>) { self.references = references }

  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { try references.isShared(block) }
  func allocateBlock() throws(ExtentFSError) -> UInt64 { 1 }
  func write(_ node: Node) throws(ExtentFSError) {}
  func released(_ block: UInt64) throws(ExtentFSError) {}
  func replaced(_ run: PhysicalRun) throws(ExtentFSError) {}
}
