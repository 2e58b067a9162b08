internal import Bytes
internal import Extents

/// An inode without a name, whose tree is to be given up.
package struct Deletion: Sendable {
  package var inode: UInt64
  /// What it is: `the deleted volume 'vm1'`; nil where it was deleted before the store was opened, since no name is stored of it.
  package var name: String?
  /// How many blocks it still maps, those included that others share, as far as is known: 0 for a throwaway before its turn.
  package var mappedBlockCount: UInt64
  /// Why what it has is not given back; nil where nothing is known against it.
  package var damage: ExtentFSError?

  /// What it is, in words.
  package var text: String { name ?? "a volume that was deleted earlier (inode \(inode))" }
}

/// The inodes whose trees are to be given up.
struct Deletions {
  /// Those whose turn comes, in that order.
  var waiting: [Deletion] = []
  /// Those whose trees cannot be read: they stay as they are while the store is open.
  var damaged: [Deletion] = []
  /// Whether all of them are known: those that the catalog had when the store was opened were looked for.
  var isComplete = false
}

extension Engine {
  /// What is deleted and has not been given back yet. It is kept in memory: only the first look, where the store had some when it was
  /// opened, goes through the catalog.
  ///
  /// - Returns: those that are damaged behind the others.
  package func deletionBacklog() throws(ExtentFSError) -> [Deletion] {
    try completeDeletions()
    return state.withLock { $0.deletions.waiting + $0.deletions.damaged }
  }

  /// Looks for the deleted inodes where there may be some that are not known: deleted ones, and throwaways of an earlier opening.
  private func completeDeletions() throws(ExtentFSError) {
    guard state.withLock({ !$0.deletions.isComplete }) else { return }
    try checkpoints.withLock { () throws(ExtentFSError) in
      let (superblock, open) = state.withLock { ($0.superblock, Set($0.volumes.keys)) }
      var found: [Deletion] = []
      if superblock.transientCount > 0 {
        try Catalog(nodes: nodes, superblock: superblock).forEachReadable({ self.noteUnreadableInodes($0) }) {
          inode, record in
          if record.isTransient, !open.contains(inode) {
            found.append(Deletion(inode: inode, mappedBlockCount: record.mappedBlocks))
          }
          return true
        }
      }
      state.withLock { state in
        guard !state.deletions.isComplete else { return }
        // Those that were deleted since have names.
        let known = Set(state.deletions.waiting.map(\.inode))
        state.deletions.waiting = found.filter { !known.contains($0.inode) } + state.deletions.waiting
        state.deletions.isComplete = true
      }
    }
  }

  /// Gives `inode`, of which `record` is left, up: at once, or in steps in the background, where it has a tree. Within a checkpoint.
  ///
  /// - Parameter name: what it is, in words.
  func giveUp(
    _ record: InodeRecord, _ inode: UInt64, _ name: String, _ catalog: CatalogEditor,
    _ writer: CheckpointWriter
  ) throws(ExtentFSError) {
    try catalog.giveUp(record, inode, writer)
    guard let left = try catalog.record(of: inode) else { return }
    writer.deletions.append(Deletion(inode: inode, name: name, mappedBlockCount: left.mappedBlocks))
  }

  /// Gives up a bounded part of what is deleted: one checkpoint. False where nothing was left to do.
  ///
  /// A crash at any point leaves a tree of which the rest is given up later.
  package func dropDeleted() throws(ExtentFSError) -> Bool {
    try completeDeletions()
    guard state.withLock({ !$0.deletions.waiting.isEmpty }) else { return false }
    return try checkpoints.withLock { () throws(ExtentFSError) in
      try health.requireWritable()
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
      let left = Dictionary(
        uniqueKeysWithValues: turn.map { ($0.inode, (catalog.inodes[$0.inode] ?? nil)?.mappedBlocks) })
      state.withLock { state in
        state.deletions.waiting = state.deletions.waiting.compactMap { deletion in
          guard let left = left[deletion.inode] else { return deletion }
          return left.map { Deletion(inode: deletion.inode, name: deletion.name, mappedBlockCount: $0) }
        }
      }
      return true
    }
  }
}

extension Engine {
  /// Looks which deleted inodes cannot be given up, where the store is open for reading only, so that nobody gives up anything. As
  /// much is looked at as the first step of each would, of so many of them as there is time for.
  package func findDamagedDeletions() throws(ExtentFSError) {
    try completeDeletions()
    try checkpoints.withLock { () throws(ExtentFSError) in
      let catalog = makeCatalogEditor()
      for deletion in state.withLock({ $0.deletions.waiting }).prefix(Self.soughtDeletionCountMax) {
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
      for deletion in state.withLock({ $0.deletions.waiting }) where work.nodesLeft > 0 && !damaged {
        var deletion = deletion
        do throws(ExtentFSError) {
          guard let record = try catalog.record(of: deletion.inode), record.isTransient else {
            forget(deletion)
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

  private func forget(_ deletion: Deletion) {
    state.withLock { state in state.deletions.waiting.removeAll { $0.inode == deletion.inode } }
  }

  /// Takes note that `deletion` is damaged, so that the others go on without it.
  private func setAside(_ deletion: Deletion, _ error: ExtentFSError) {
    var deletion = deletion
    deletion.damage = error
    forget(deletion)
    state.withLock { $0.deletions.damaged.append(deletion) }
    // Fits as far as the device has so many blocks; what a damaged record counts may be more.
    let byteCount = min(deletion.mappedBlockCount, space.blockCount) << blockSize.shift
    damage.note(
      deletion.text, key: "deleted \(DamageRegister.key(ofInode: deletion.inode))", error,
      "its space cannot be given back, so that up to \(byteCount) bytes stay in use")
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
  func released(_ block: UInt64) throws(ExtentFSError) { _ = try references.release(node: block) }
  func replaced(_ run: PhysicalRun) throws(ExtentFSError) {}
}
