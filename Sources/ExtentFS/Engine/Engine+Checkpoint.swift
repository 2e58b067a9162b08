internal import Logging
internal import Atomics
internal import Bytes
internal import Devices
internal import Extents

/// What a checkpoint merges of one volume.
struct FrozenVolume {
  var volume: DiskVolume
  var delta: Delta
  var base: ExtentBase
  /// What its writers shared until then.
  var writer: DiskVolume.WriterState
  /// Blocks that were mapped and superseded since the last checkpoint: no tree ever reached them.
  var superseded: [PhysicalRun]
}

extension Engine {
  /// Merges what changed since the last checkpoint into the trees, and moves the superblock on. Writers go on meanwhile.
  ///
  /// ```
  /// freeze:   active delta -> frozen, empty active; the journal is cut there
  /// merge:    frozen deltas -> trees -> catalog -> bitmaps and checksum blocks -> space tree, all in free blocks
  /// commit:   sync; superblock into the other slot; sync
  /// publish:  views without the frozen deltas, in a new epoch; the journal's tail moves to the cut
  /// ```
  ///
  /// - Throws: what went wrong; then the store refuses writes until it is opened again (invariant 4), unless what was lacking is
  ///   room: then the checkpoint has not been, and is tried again later.
  package func checkpoint() throws(ExtentFSError) { try checkpoint { true } }

  /// Runs a checkpoint, unless one that ended meanwhile has made it needless.
  func checkpoint(if isNeeded: () -> Bool) throws(ExtentFSError) {
    try checkpoints.withLock { () throws(ExtentFSError) in
      try health.requireWritable()
      guard isNeeded() else { return }
      try requireCheckpointRoom()
      try write(CheckpointPlan(makeCatalogEditor()), evenIfUnchanged: false)
    }
  }

  /// Runs a checkpoint that does what `prepare` plans. `prepare` runs before anything is changed, and may refuse.
  func checkpoint<Result>(
    _ prepare: (inout CheckpointPlan) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    try checkpoints.withLock { () throws(ExtentFSError) in
      try health.requireWritable()
      try requireCheckpointRoom()
      var plan = CheckpointPlan(makeCatalogEditor())
      defer { letGo(of: plan.held) }
      let result = try prepare(&plan)
      try write(plan)
      return result
    }
  }

  /// The catalog as of the last checkpoint, to be changed by the next. Under `checkpoints`.
  func makeCatalogEditor() -> CatalogEditor {
    CatalogEditor(
      Catalog(nodes: nodes, superblock: state.withLock { $0.superblock }), incomplete: Set(strayChanges.keys))
  }

  /// Runs a checkpoint, whose failure is final, unless it finds no room. Under `checkpoints`.
  func write(_ plan: CheckpointPlan, evenIfUnchanged: Bool = true) throws(ExtentFSError) {
    guard evenIfUnchanged || hasChanges else {
      // Nothing waits for room any more.
      return shortage.withLock { $0 = nil }
    }
    let (frozen, cut) = freeze(holding: plan.held)
    defer { for volume in plan.held.reversed() { volume.writers.unlock() } }
    let start = ContinuousClock.now
    let writer = CheckpointWriter(self, after: plan.catalog.catalog.superblock)
    let refusal: ExtentFSError?
    do throws(ExtentFSError) {
      refusal = try merge(frozen, cut, plan, writer)
      let duration = ContinuousClock.now - start
      checkpointTimes.withLock { $0.note(duration) }
      if duration > options.slowCheckpointDuration {
        log.keep(
          .notice, "a checkpoint was slow",
          [
            (.milliseconds, duration.milliseconds), (.volumes, "\(frozen.count)"),
            (.nodes, "\(writer.allocated.count)"),
            (.freedBlocks, "\(writer.released.reduce(0) { $0 + $1.count })"),
          ])
      }
    } catch {
      try undo(frozen, plan, writer, after: error)
      throw error
    }
    shortage.withLock { $0 = nil }
    if let refusal { throw refusal }
  }

  /// Whether there is anything to merge. What is carried along alone is no reason for a checkpoint.
  private var hasChanges: Bool {
    let (volumes, hasOrphans) = state.withLock { ($0.volumes.values.map(\.volume), !$0.orphans.isEmpty) }
    return hasOrphans
      || volumes.contains { volume in
        volume.writers.withLock { writer in
          !volume.current.load(ordering: .relaxed).active.isEmpty && !writer.hasOnlyCarried
        }
      }
  }

  /// Makes the volumes' active deltas frozen, all at one instant, and cuts the journal there. The locks of the volumes `held`
  /// stay taken.
  private func freeze(
    holding held: [DiskVolume]
  ) -> (frozen: [FrozenVolume], cut: JournalPosition) {
    let (volumes, cut) = lockWriters()
    let held = Set(held.map(\.inode))
    defer { for volume in volumes where !held.contains(volume.inode) { volume.writers.unlock() } }
    freezeEditBudget()
    var frozen: [FrozenVolume] = []
    for volume in volumes {
      let view = volume.current.load(ordering: .relaxed)
      guard !view.active.isEmpty else { continue }
      let writer = volume.writers.assumingLocked { writer in
        defer { writer.startAgain() }
        return writer
      }
      frozen.append(
        FrozenVolume(
          volume: volume, delta: view.active, base: view.base, writer: writer, superseded: writer.superseded))
      volume.publish(view.replacing(active: Delta(), frozen: view.active))
    }
    return (frozen, cut)
  }

  /// Takes the locks of all writers, and cuts the journal there.
  private func lockWriters() -> (volumes: [DiskVolume], cut: JournalPosition) {
    var locked: [UInt64: DiskVolume] = [:]
    while true {
      var opened: [DiskVolume] = []
      // Who opens a volume takes the lock of `state`: what is written to one that is opened later comes behind the cut.
      let cut = state.withLock { state -> JournalPosition? in
        opened = state.volumes.filter { locked[$0.key] == nil }.map(\.value.volume)
        guard opened.isEmpty else { return nil }
        defer { space.freezePromises() }
        return journal.cut()
      }
      if let cut { return (locked.values.sorted { $0.inode < $1.inode }, cut) }
      // Nobody else takes the locks of several volumes, so that their order does not matter.
      for volume in opened {
        volume.writers.lock()
        locked[volume.inode] = volume
      }
    }
  }

  /// Writes a new superblock that has the frozen deltas and what is planned in its trees, and publishes it.
  ///
  /// - Returns: why nothing came of the plan, though the checkpoint is done: a volume that was to be copied has changes which cannot
  ///   be merged, so that the copy would be older than it.
  private func merge(
    _ frozen: [FrozenVolume], _ cut: JournalPosition, _ plan: CheckpointPlan,
    _ writer: CheckpointWriter
  ) throws(ExtentFSError) -> ExtentFSError? {
    let catalog = plan.catalog
    var frozen = frozen
    guard writer.generation > 0 else {
      throw ExtentFSError(.damaged, "the superblock has the last generation that there is")
    }
    try relocate(&frozen, writer)
    let (slot, throwaways, orphans) = state.withLock { ($0.slot, $0.newThrowaways, $0.orphans) }
    for (inode, record) in throwaways.sorted(by: { $0.key < $1.key }) {
      try catalog.setRecord(record, of: inode)
      try writer.retain(record.base)
    }
    var left: [LeftOut] = []
    for part in frozen { if let rest = try merge(part, catalog, writer) { left.append(rest) } }
    let uncopied = left.first { item in plan.copies.contains { $0.from == item.volume.inode } }
    if uncopied == nil { try plan.finish(writer) } else { try catalog.withdraw(plan.copies.map(\.to)) }
    writer.hasCarried = !left.isEmpty || !strayChanges.isEmpty
    let carried = try carry(left, plan)
    defer { for volume in carried.locked { volume.writers.unlock() } }
    let superblock = try writeTrees(catalog, writer, cut)

    try commits.barrier()
    try write(superblock, to: 1 - slot)
    try commits.barrier()
    space.didMergePromises(catalog.promisedChange)
    publish(
      superblock, slot: 1 - slot, plan, carried, writer.deletions,
      retiring: writer.released + frozen.flatMap(\.superseded) + orphans + carried.retired)
    updateReserve()
    journal.advanceTail(to: cut)
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
      return LeftOut(volume: volume, changes: part.delta, damage: error)
    }
    guard var record = found else {
      throw ExtentFSError.internalInconsistency("the open inode \(volume.inode) is not in the catalog")
    }
    let merged = try part.base.merging(part.delta, owner: volume.inode, nodes, writer)
    var reached = part.delta
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

  /// The trees reach the delta's blocks from now on.
  private func commitBlocks(of delta: Delta) throws(ExtentFSError) {
    try delta.forEachRun(in: 0..<UInt64.max) { run throws(ExtentFSError) in
      if let block = run.value.physicalBlock {
        do throws(ExtentFSError) {
          try space.commit(PhysicalRun(block: block, count: run.positions.length))
        } catch {
          throw error.blamed(onJournal: mayBlameJournal)
        }
      }
      return true
    }
  }

  /// Whether a contradiction in the space map may come from the device: records of a forged journal, or of a damaged one, may name
  /// a block twice.
  private var mayBlameJournal: Bool { !trustsChanges.load(ordering: .relaxed) || !damage.all.isEmpty }

  /// Writes the catalog, the tree of shared runs and the space, and makes the superblock that leads to them.
  private func writeTrees(
    _ catalog: CatalogEditor, _ writer: CheckpointWriter, _ cut: JournalPosition
  ) throws(ExtentFSError) -> Superblock {
    let merge = TreeMerge(cache: nodes, writer: writer)
    var superblock = catalog.superblock
    superblock.generation = writer.generation
    superblock.inodes = try merge.mergeKeyed(root: superblock.inodes, kind: .inodes, edits: catalog.inodeEdits)
    if catalog.rebuildsNames {
      try merge.giveUp(superblock.names, kind: .names)
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
    superblock.nodeBlockCount = superblock.nodeBlockCount.saturatingSum(writer.nodeCountChange)
    superblock.reservedBlockCount = superblock.reservedBlockCount.saturatingSum(catalog.promisedChange)
    if catalog.needsSnapshots || !superblock.shared.isEmpty { superblock.add(.snapshots) }
    return superblock
  }

  /// Writes checksum blocks and bitmaps, and the tree of their records.
  ///
  /// The tree's own nodes change bitmaps, so that it is known only afterwards which groups it has to name. The tree is
  /// therefore planned first, without writing, until its nodes dirty no further group.
  private func writeSpace(_ root: TreeRoot, _ writer: CheckpointWriter) throws(ExtentFSError) -> TreeRoot {
    try checksums.writeDirty()
    var groups: [UInt64] = []
    while true {
      let dirty = space.dirtyGroups()
      if dirty == groups { break }
      groups = dirty
      try writer.plan(root, groups)
    }
    let changed = try space.writeDirty()
    return try writer.mergePlanned(
      root, changed.map { KeyedEdit(key: $0.group, value: encoded(GroupRecord.encodedByteCount, $0.record.encode)) })
  }

  private func publish(
    _ superblock: Superblock, slot: Int, _ plan: CheckpointPlan, _ carried: Carried,
    _ deletions: [Deletion], retiring runs: [PhysicalRun]
  ) {
    spaceRoot.withLock { $0 = superblock.space }
    space.didCommit()
    space.setLimit(options.limitBlockCount(of: superblock))
    checksums.didCommit()
    heldBlockCount.wrappingIncrement(by: runs.reduce(0) { $0 &+ $1.count }, ordering: .relaxed)
    let (volumes, epoch, old) = state.withLock { state in
      let old = state.epoch
      state.superblock = superblock
      state.slot = slot
      state.newThrowaways = [:]
      state.orphans = []
      state.deletions.waiting += deletions
      state.epoch = old.end(retiring: runs)
      return (state.volumes.mapValues(\.volume), state.epoch, old)
    }
    let held = Set((plan.held + carried.locked).map(\.inode))
    for (inode, volume) in volumes {
      let isHeld = held.contains(inode)
      if !isHeld { volume.writers.lock() }
      // Leaves the lock before it goes, since blocks may be set free with it.
      let replaced = publish(volume, plan.catalog.inodes[inode], carried.changes[inode], epoch)
      if !isHeld { volume.writers.unlock() }
      withExtendedLifetime(replaced) {}
    }
    withExtendedLifetime(old) {}
  }

  /// Publishes what a checkpoint has made of an open volume, under its `writers`, and closes it where nobody needs it. Returns
  /// what it replaced.
  ///
  /// - Parameters:
  ///   - record: the volume's record where that has changed; nil inside where it is gone.
  ///   - carried: what could not be merged of it.
  private func publish(
    _ volume: DiskVolume, _ record: InodeRecord??, _ carried: Delta?, _ epoch: Epoch
  ) -> View {
    let old = volume.current.load(ordering: .relaxed)
    let active = (carried ?? Delta()).overlaid(by: old.active)
    if let carried {
      volume.writers.assumingLocked { writer in
        writer.hasOnlyCarried = old.active.isEmpty
        writer.chargedCount &+= carried.physicalRuns.reduce(0) { $0 &+ $1.count }
      }
    }
    guard let changed = record else {
      // Where its record cannot be read, it keeps what it has.
      let access = volume.isDamaged ? VolumeAccess.readOnly : old.access
      volume.publish(old.replacing(active: active, frozen: nil, access: access, epoch: epoch))
      close(volume, unlessUsedOr: !active.isEmpty)
      return old
    }
    guard let record = changed, record.kind != .deleted else {
      volume.publish(.deleted(inode: volume.inode))
      volume.forgetDamage()
      state.withLock { _ = $0.volumes.removeValue(forKey: volume.inode) }
      return old
    }
    volume.writers.assumingLocked { $0.didMerge(record) }
    volume.names.withLock { $0 = record.name }
    let access = volume.isDamaged ? VolumeAccess.readOnly : record.access
    volume.publish(View(inode: volume.inode, record, access: access, active: active, epoch: epoch))
    close(volume, unlessUsedOr: !active.isEmpty)
    return old
  }

  /// Takes an open volume that nobody uses out of those that checkpoints care for.
  private func close(_ volume: DiskVolume, unlessUsedOr isChanged: Bool) {
    guard !isChanged else { return }
    state.withLock { state in
      if state.volumes[volume.inode]?.userCount == 0 { state.volumes[volume.inode] = nil }
    }
  }
}
