internal import Bytes
internal import Extents

extension Engine {
  /// What is deleted and has not been given back yet. It is kept in memory: only the first look, where the store had some when it was
  /// opened, goes through the catalog.
  ///
  /// - Returns: those that are damaged behind the others.
  package func deletionBacklog() throws(ExtentFSError) -> [Deletion] {
    try completeDeletions()
    return deletions.all
  }

  /// Looks for the deleted inodes where there may be some that are not known: deleted ones, and throwaways of an earlier opening.
  private func completeDeletions() throws(ExtentFSError) {
    guard !deletions.isComplete else { return }
    try checkpoints.withTurn { _ throws(ExtentFSError) in
      let (superblock, open) = (superblocks.newest, volumes.inodes)
      var found: [Deletion] = []
      if superblock.transientCount > 0 {
        try Catalog(nodes: nodes, superblock: superblock).forEachReadable({ damage.noteUnreadableInodes($0) }) {
          inode, record in
          if record.isTransient, !open.contains(inode) {
            found.append(Deletion(inode: inode, mappedBlockCount: record.mappedBlocks))
          }
          return true
        }
      }
      deletions.complete(with: found)
    }
  }

  /// Gives up a bounded part of what is deleted: one checkpoint. False where nothing was left to do.
  ///
  /// A crash at any point leaves a tree of which the rest is given up later.
  package func dropDeleted() throws(ExtentFSError) -> Bool {
    try completeDeletions()
    guard !deletions.isEmpty else { return false }
    return try checkpoints.withTurn { turn throws(ExtentFSError) in
      try health.requireWritable()
      var plan = CheckpointPlan(turn.makeCatalogEditor())
      try reserve.requireCheckpointRoom()
      let next = try nextDeletions(plan.catalog)
      guard !next.isEmpty else { return false }
      let catalog = plan.catalog
      plan.finish = { writer throws(ExtentFSError) in
        var work = DropWork(nodesLeft: self.options.deletionStepNodeCount)
        for (inode, record) in next {
          var rest = record
          let before = work
          rest.extents = try TreeMerge(cache: self.nodes, writer: writer).drop(record.extents, &work)
          rest.mappedBlocks = rest.mappedBlocks.saturatingSubtract(work.mappedCount &- before.mappedCount)
          rest.reservedBlocks = rest.reservedBlocks.saturatingSubtract(work.reservedCount &- before.reservedCount)
          try catalog.detach(rest, inode, writer)
        }
      }
      try turn.write(plan)
      deletions.didDrop(
        Dictionary(
          uniqueKeysWithValues: next.map { ($0.inode, (catalog.inodes[$0.inode] ?? nil)?.mappedBlocks) }))
      return true
    }
  }
}

extension Engine {
  /// Looks which deleted inodes cannot be given up, where the store is open for reading only, so that nobody gives up anything. As
  /// much is looked at as the first step of each would, of so many of them as there is time for.
  package func findDamagedDeletions() throws(ExtentFSError) {
    try completeDeletions()
    try checkpoints.withTurn { turn throws(ExtentFSError) in
      let catalog = turn.makeCatalogEditor()
      for deletion in deletions.waiting.prefix(Self.soughtDeletionCountMax) {
        var work = DropWork(nodesLeft: options.deletionStepNodeCount)
        let rehearsal = DropRehearsal(ReferenceCounts(nodes, root: catalog.superblock.shared))
        do throws(ExtentFSError) {
          guard let record = try catalog.record(of: deletion.inode) else { continue }
          _ = try TreeMerge(cache: nodes, writer: rehearsal).drop(record.extents, &work)
        } catch {
          guard error.isUnreadable else { throw error }
          setAside(deletion, error)
        }
      }
    }
  }
  private static var soughtDeletionCountMax: Int { 16 }

  /// The deleted inodes whose turn it is, as many as one step can begin with. What is damaged must be found before the checkpoint
  /// begins, which it would end for good: so the step is rehearsed, and without those that are damaged once more.
  private func nextDeletions(
    _ catalog: CatalogEditor
  ) throws(ExtentFSError) -> [(inode: UInt64, record: InodeRecord)] {
    while true {
      var turn: [(inode: UInt64, record: InodeRecord)] = []
      var work = DropWork(nodesLeft: options.deletionStepNodeCount)
      let rehearsal = DropRehearsal(ReferenceCounts(nodes, root: catalog.superblock.shared))
      var damaged = false
      for deletion in deletions.waiting where work.nodesLeft > 0 && !damaged {
        var deletion = deletion
        do throws(ExtentFSError) {
          guard let record = try catalog.record(of: deletion.inode), record.isTransient else {
            deletions.remove(deletion.inode)
            continue
          }
          deletion.mappedBlockCount = record.mappedBlocks
          _ = try TreeMerge(cache: nodes, writer: rehearsal).drop(record.extents, &work)
          turn.append((deletion.inode, record))
        } catch {
          guard error.isUnreadable else { throw error }
          setAside(deletion, error)
          damaged = true
        }
      }
      if !damaged { return turn }
    }
  }

  /// Takes note that `deletion` is damaged, so that the others go on without it.
  private func setAside(_ deletion: Deletion, _ error: ExtentFSError) {
    deletions.setAside(deletion, error)
    // Fits as far as the device has so many blocks; what a damaged record counts may be more.
    let byteCount = min(deletion.mappedBlockCount, space.blockCount) << blockSize.shift
    damage.note(
      deletion.text, key: "deleted \(DamageRegister.key(ofInode: deletion.inode))", error,
      "its space cannot be freed, so that up to \(byteCount) bytes stay in use")
  }
}

/// Goes through a drop without changing anything, to see whether it can be done.
private final class DropRehearsal: TreeWriter {
  let generation: UInt64 = 1
  private let references: ReferenceCounts

  init(_ references: ReferenceCounts) { self.references = references }

  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { try references.isShared(block) }
  func allocateBlock() throws(ExtentFSError) -> UInt64 { 1 }
  func write(_ node: Node) throws(ExtentFSError) {}
  func freeNode(_ block: UInt64) throws(ExtentFSError) { _ = try references.release(node: block) }
  func freeData(_ run: PhysicalRun) throws(ExtentFSError) {}
}
