internal import Atomics
internal import BlockStores
internal import Bytes
internal import Devices

/// What a checkpoint merges of one volume.
struct FrozenVolume<Device: BlockDevice> {
  var volume: DiskVolume<Device>
  var delta: Delta
  var base: ExtentBase
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
  /// - Throws: what went wrong; then the store refuses writes until it is opened again (invariant 4).
  @_specialize(where Device == FileDevice)
  package func checkpoint() throws(ExtentFSError) {
    try checkpoints.withLock { () throws(ExtentFSError) in
      try journal.requireUsable()
      let (frozen, cut) = freeze()
      guard !frozen.isEmpty else { return }
      do throws(ExtentFSError) {
        try merge(frozen, cut)
      } catch {
        journal.fail("a checkpoint failed: \(error)")
        throw error
      }
    }
  }

  /// Makes the volumes' active deltas frozen, all at one instant, and cuts the journal there.
  func freeze() -> ([FrozenVolume<Device>], JournalPosition) {
    let volumes = state.withLock { $0.volumes.values.sorted { $0.inode < $1.inode } }
    for volume in volumes { volume.writers.lock() }
    defer { for volume in volumes.reversed() { volume.writers.unlock() } }
    let cut = journal.cut()
    var frozen: [FrozenVolume<Device>] = []
    for volume in volumes {
      let view = volume.current.load(ordering: .relaxed)
      guard !view.active.isEmpty else { continue }
      let superseded = volume.writers.assumingLocked { writer in
        defer { writer.startAgain() }
        return writer.superseded
      }
      frozen.append(FrozenVolume(volume: volume, delta: view.active, base: view.base, superseded: superseded))
      volume.publish(view.replacing(active: Delta(), frozen: view.active))
    }
    return (frozen, cut)
  }

  /// Writes a new superblock that has the frozen deltas and `catalogChanges` in its trees, and publishes it.
  func merge(
    _ frozen: [FrozenVolume<Device>], _ cut: JournalPosition, _ catalogChanges: CatalogChanges = CatalogChanges(),
    change: (inout Superblock) -> Void = { _ in }
  ) throws(ExtentFSError) {
    var (superblock, slot, inodes) = state.withLock { ($0.superblock, $0.slot, $0.inodes) }
    var catalog = catalogChanges
    guard superblock.generation < .max else {
      throw ExtentFSError(.damaged, "the superblock has the last generation that there is")
    }
    superblock.generation += 1
    var mappedChange: Int64 = 0
    let writer = CheckpointWriter(self, generation: superblock.generation)
    var bases: [UInt64: ExtentBase] = [:]

    for part in frozen {
      let inode = part.volume.inode
      let (base, mapped, reserved) = try part.base.merging(part.delta, owner: inode, nodes, writer)
      try commitBlocks(of: part.delta)
      bases[inode] = base
      mappedChange += mapped
      guard var record = catalog.inodes[inode] ?? inodes[inode] else { continue }
      record.extents = base.root
      record.inlineExtents = base.inline
      record.mappedBlocks = UInt64(clamping: Int64(record.mappedBlocks) + mapped)
      record.reservedBlocks = UInt64(clamping: Int64(record.reservedBlocks) + reserved)
      catalog.inodes[inode] = record
    }
    let merge = TreeMerge(cache: nodes, writer: writer)
    superblock.inodes = try merge.mergeKeyed(root: superblock.inodes, kind: .inodes, edits: catalog.inodeEdits)
    superblock.names = try merge.mergeKeyed(root: superblock.names, kind: .names, edits: catalog.nameEdits)
    superblock.space = try writeSpace(superblock.space, writer)
    superblock.blockCount = space.blockCount
    superblock.groupCount = space.groupCount
    superblock.usedBlockCount = space.usedBlockCount
    superblock.journalTailOffset = cut.offset
    superblock.journalTailSequence = cut.sequence
    change(&superblock)

    try commits.barrier()
    try device.writeSuperblock(superblock, slot: 1 - slot)
    try commits.barrier()
    publish(superblock, slot: 1 - slot, catalog, bases, retiring: writer.released + frozen.flatMap(\.superseded))
    state.withLock { $0.mappedBlockCount = UInt64(clamping: Int64(clamping: $0.mappedBlockCount) &+ mappedChange) }
    updateReserve()
    journal.advanceTail(to: cut)
  }

  /// The trees reach the delta's blocks from now on.
  private func commitBlocks(of delta: Delta) throws(ExtentFSError) {
    try delta.forEachRun(in: 0..<UInt64.max) { run throws(ExtentFSError) in
      if let block = run.value.physicalBlock {
        try space.commit(PhysicalRun(block: block, count: run.positions.length))
      }
      return true
    }
  }

  /// Writes checksum blocks and bitmaps, and the tree of their records.
  ///
  /// The tree's own nodes change bitmaps, so that it is known only afterwards which groups it has to name. The tree is
  /// therefore planned first, without writing, until its nodes dirty no further group.
  private func writeSpace(_ root: TreeRoot, _ writer: CheckpointWriter<Device>) throws(ExtentFSError) -> TreeRoot {
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
    _ superblock: Superblock, slot: Int, _ catalog: CatalogChanges, _ bases: [UInt64: ExtentBase],
    retiring runs: [PhysicalRun]
  ) {
    spaceRoot.withLock { $0 = superblock.space }
    space.didCommit()
    checksums.didCommit()
    let (volumes, epoch, old) = state.withLock { state in
      let old = state.epoch
      state.superblock = superblock
      state.slot = slot
      for (inode, record) in catalog.inodes where state.volumes[inode] != nil { state.inodes[inode] = record }
      state.epoch = old.end(retiring: runs)
      return (state.volumes, state.epoch, old)
    }
    for (inode, volume) in volumes {
      var replaced: View?  // Leaves the lock before it goes, since blocks may be set free with it.
      volume.writers.withLock { writer in
        if let record = catalog.inodes[inode] { writer.treeBlockCount = record.mappedBlocks }
        let view = volume.current.load(ordering: .relaxed)
        replaced = view
        volume.publish(view.replacing(frozen: nil, base: bases[inode], epoch: epoch))
      }
      withExtendedLifetime(replaced) {}
    }
    withExtendedLifetime(old) {}
  }
}
