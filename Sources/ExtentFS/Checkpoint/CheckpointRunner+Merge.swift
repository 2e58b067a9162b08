internal import Bytes
internal import Devices
internal import Extents

extension CheckpointRunner {
  /// Writes a new superblock that has the frozen overlays and what is planned in its trees, and publishes it.
  ///
  /// - Returns: why nothing came of the plan, though the checkpoint is done: a volume that was to be copied has changes which cannot
  ///   be merged, so that the copy would be older than it.
  func merge(
    _ frozen: [FrozenVolume], _ cut: JournalPosition, _ plan: CheckpointPlan,
    _ writer: CheckpointWriter
  ) throws(ExtentFSError) -> ExtentFSError? {
    let catalog = plan.catalog
    var frozen = frozen
    guard writer.generation > 0 else {
      throw ExtentFSError(.damaged, "the superblock has the last generation that there is")
    }
    try relocate(&frozen, writer)
    let (slot, pendingFree) = (superblocks.slot, ephemerals.pendingFree)
    for (inode, record) in ephemerals.unwritten.sorted(by: { $0.key < $1.key }) {
      try catalog.setRecord(record, of: inode)
      try writer.retain(record.base)
    }
    var left: [LeftOut] = []
    for part in frozen { if let rest = try merge(part, catalog, writer) { left.append(rest) } }
    let uncopied = left.first { item in plan.copies.contains { $0.from == item.volume.inode } }
    if uncopied == nil { try plan.finish(writer) } else { try catalog.withdraw(plan.copies.map(\.to)) }
    let carries = !left.isEmpty || !strayChanges.isEmpty
    // Until here a lack of room can be undone, and afterwards it cannot.
    if carries { try writer.batch.flush() }
    writer.hasCarried = carries
    let carried = try carry(left, plan)
    defer { for volume in carried.exclusive { volume.endExclusive() } }
    let superblock = try writeTrees(catalog, writer, cut)

    try writer.batch.flush()
    try commits.syncAll()
    try write(superblock, to: 1 - slot)
    try commits.syncAll()
    space.didMergePromises(catalog.promisedChange)
    publish(
      superblock, slot: 1 - slot, plan, carried, writer.deletions,
      retiring: writer.released + frozen.flatMap(\.superseded) + pendingFree + carried.retired)
    didPublish(cut)
    return uncopied.map { $0.volume.incomplete }
  }

  /// Writes the superblock into `slot`. One of which anything is there, though there was no room for it, is the end.
  private func write(_ superblock: Superblock, to slot: Int) throws(ExtentFSError) {
    do throws(ExtentFSError) {
      try device.writeSuperblock(superblock, slot: slot)
    } catch {
      if !device.isUntouched(slot: slot, by: superblock) { health.fail(.superblock, error) }
      throw error
    }
  }

  /// Merges what changed of one volume into its tree. Returns what cannot be merged, since a node of the tree, or the volume's
  /// record, cannot be read.
  private func merge(
    _ part: FrozenVolume, _ catalog: CatalogEditor, _ writer: CheckpointWriter
  ) throws(ExtentFSError) -> LeftOut? {
    let volume = part.volume
    var found: InodeRecord?
    do throws(ExtentFSError) {
      found = try catalog.record(of: volume.inode)
    } catch {
      guard error.isUnreadable else { throw error }
      return LeftOut(volume: volume, changes: part.overlay, damage: error)
    }
    guard var record = found else {
      throw ExtentFSError.internalInconsistency("the open inode \(volume.inode) is not in the catalog")
    }
    let merged = try part.base.merging(part.overlay, owner: volume.inode, nodes, writer)
    var reached = part.overlay
    for run in merged.leftOut.runs { reached.replace(run.positions, with: nil) }
    try commitBlocks(of: reached)
    record.base = merged.base
    record.count(mapped: merged.mapped, reserved: merged.reserved)
    try catalog.setRecord(record, of: volume.inode)
    guard let damage = merged.damage else {
      volume.noteDamage(nil)
      return nil
    }
    return LeftOut(volume: volume, changes: merged.leftOut, damage: damage)
  }

  /// The trees reach the overlay's blocks from now on.
  private func commitBlocks(of overlay: Overlay) throws(ExtentFSError) {
    try overlay.forEachRun(in: 0..<UInt64.max) { run throws(ExtentFSError) in
      if let block = run.value.physicalBlock {
        do throws(ExtentFSError) {
          try space.commit(PhysicalRun(block: block, count: run.positions.length))
        } catch {
          throw trust.blame(error)
        }
      }
      return true
    }
  }

  /// Writes the catalog, the tree of shared runs and the space, and makes the superblock that leads to them.
  private func writeTrees(
    _ catalog: CatalogEditor, _ writer: CheckpointWriter, _ cut: JournalPosition
  ) throws(ExtentFSError) -> Superblock {
    let merge = TreeMerge(cache: nodes, writer: writer)
    var superblock = catalog.superblock
    superblock.generation = writer.generation
    superblock.inodes = try merge.mergeKeyed(root: superblock.inodes, kind: .inodes, edits: catalog.inodeEdits)
    if catalog.rebuildsNames {
      try merge.freeTree(superblock.names, kind: .names)
      superblock.names = .empty
    }
    superblock.names = try merge.mergeKeyed(root: superblock.names, kind: .names, edits: catalog.nameEdits)
    let references = try writer.finishReferences()
    superblock.shared = try merge.mergeKeyed(
      root: superblock.shared, kind: .shared, edits: references, unreadable: .replace(writer.references.unknownParts))
    superblock.space = try writeSpace(superblock.space, writer)
    superblock.blockCount = space.blockCount
    superblock.groupCount = space.groupCount
    superblock.usedBlockCount = space.usedBlockCount
    superblock.journalTailOffset = cut.offset
    superblock.journalTailSequence = cut.sequence
    superblock.nodeBlockCount = superblock.nodeBlockCount.saturatingAdd(writer.nodeCountChange)
    superblock.reservedBlockCount = superblock.reservedBlockCount.saturatingAdd(catalog.promisedChange)
    if catalog.needsSnapshots || !superblock.shared.isEmpty { superblock.add(.snapshots) }
    return superblock
  }

  /// Writes checksum blocks and bitmaps, and the tree of their records.
  ///
  /// The tree's own nodes change bitmaps, so that it is known only afterwards which groups it has to name. The tree is
  /// therefore planned first, without writing, until its nodes dirty no further group.
  private func writeSpace(_ root: TreeRoot, _ writer: CheckpointWriter) throws(ExtentFSError) -> TreeRoot {
    try checksums.writeDirty(writer.batch)
    var groups: [UInt64] = []
    while true {
      let dirty = space.dirtyGroups()
      if dirty == groups { break }
      groups = dirty
      try writer.plan(root, groups)
    }
    let changed = try space.writeDirty(writer.batch)
    return try writer.mergePlanned(
      root, changed.map { KeyedEdit(key: $0.group, value: encoded(GroupRecord.encodedByteCount, $0.record.encode)) })
  }

  /// Learns how many nodes there are, and what is promised to volumes. Once, when the store is opened. A store without the
  /// feature does not say it, and has few volumes.
  func countBlocks() throws(ExtentFSError) {
    var superblock = superblocks.newest
    if !superblock.has(.snapshots) {
      var mapped: UInt64 = 0
      try Catalog(nodes: nodes, superblock: superblock).forEach { _, record in
        // Each is at most 2^62; what is damaged must not trap.
        mapped = min(mapped, ExtentRecord.blockLimit) + record.mappedBlocks
        superblock.reservedBlockCount = min(
          superblock.reservedBlockCount + record.promisedBlocks, ExtentRecord.blockLimit)
        return true
      }
      superblock.nodeBlockCount = superblock.usedBlockCount.saturatingSubtract(mapped)
      superblocks.setCounts(
        nodeBlockCount: superblock.nodeBlockCount, reservedBlockCount: superblock.reservedBlockCount)
    }
    space.didMergePromises(Int64(superblock.reservedBlockCount))
  }
}
