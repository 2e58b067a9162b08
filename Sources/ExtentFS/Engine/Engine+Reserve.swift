internal import Atomics
internal import Bytes

/// How many changes of mappings the reserve is enough for.
struct EditBudget {
  /// The number of the last change that is in the trees.
  var merged: UInt64 = 0
  /// The number of the last change that the running checkpoint merges.
  var frozen: UInt64 = 0
  /// How many nodes the trees had when they were last written. While a checkpoint runs, the numbers that say so do not fit
  /// each other.
  var nodeCount: UInt64 = 0
}

extension Engine {
  /// Learns how many nodes there are, and what is promised to volumes. Once, when the store is opened. A store without the
  /// feature does not say it, and has few volumes.
  func countBlocks() throws(ExtentFSError) {
    var superblock = self.superblock
    if !superblock.has(.snapshots) {
      var mapped: UInt64 = 0
      try Catalog(nodes: nodes, superblock: superblock).forEach { _, record in
        // Each is at most 2^62; what is damaged must not trap.
        mapped = min(mapped, ExtentRecord.blockLimit) + record.mappedBlocks
        superblock.reservedBlockCount = min(
          superblock.reservedBlockCount + record.promisedBlocks, ExtentRecord.blockLimit)
        return true
      }
      superblock.nodeBlockCount = superblock.usedBlockCount.minusOrZero(mapped)
      state.withLock { $0.superblock = superblock }
    }
    space.didMergePromises(Int64(superblock.reservedBlockCount))
  }

  /// How many blocks reserved zeroes are promised.
  package var promisedBlockCount: UInt64 { space.promisedBlockCount }

  // MARK: The reserve

  /// How many free blocks are kept from data, so that checkpoints succeed on a full store.
  ///
  /// Let N be the nodes that there are (blocks in use that no volume maps), and E the changes since the trees were written.
  ///
  /// *What one checkpoint takes.* What it replaces is free only when it is durable, so all that it writes must be free
  /// before. A merge writes each old node anew at most once: N. A node that is full may become two, and one beside it too:
  /// again N at most, over any number of checkpoints, since a node that was split is half empty and takes many changes to be
  /// full again. A change adds two extents at most (it cuts one into three), hence a node for each `capacity` / 2 changes,
  /// and a little for the levels above: G. A volume that gets its first tree writes two nodes.
  ///
  /// *What the next one must find.* Writes of data take blocks down to the reserve, and then nodes, up to N + G of them, are
  /// added by the checkpoint; those must be written anew by the next, in which trims change whatever they like. Trims give
  /// back more blocks than they add extents, but only afterwards. So the growth counts three times: when it is written, and
  /// in both terms of what it takes to write it again.
  ///
  /// *E has no bound but the journal's length*, for which the reserve would be out of proportion. So it is for a number of
  /// changes, the budget; whoever finds that used up raises it, and the reserve, as long as there is room, and else runs a
  /// checkpoint (`extendEditBudget`).
  ///
  /// *Where blocks are shared*, a node that is written anew stays as well, for the others who share it: a change writes one
  /// way down the tree, or two where it is long. And the tree of shared runs may grow, up to an entry for each extent there is,
  /// which a single trim may bring about: three nodes for each leaf, as full as nodes are at least.
  private func reserveCount(forEdits editCount: UInt64, nodeCount: UInt64, isSharing: Bool) -> UInt64 {
    let volumeCount = state.withLock { UInt64($0.volumes.count) }
    let perLeaf = Self.capacity(.extents, blockSize)
    var growth = 2 * editCount / perLeaf + editCount / (8 * perLeaf) + 2
    // Each throwaway becomes an inode.
    let throwaways = state.withLock { UInt64($0.newThrowaways.count) }
    if throwaways > 0 { growth += 3 * throwaways / Self.capacity(.inodes, blockSize) + 2 }
    if isSharing {
      growth += min(2 * Self.usualHeight * editCount, nodeCount * max(volumeCount, 1)) + 3 * nodeCount
    }
    // Groups that get their first record.
    let spaceNodes = space.groupCount / Self.capacity(.space, blockSize) + 1
    return 3 * (nodeCount + growth + spaceNodes) + 4 * volumeCount + Self.reserveBlockCount
  }

  private static func capacity(_ kind: NodeKind, _ blockSize: BlockSize) -> UInt64 {
    UInt64(NodeLayout(kind, level: 0, blockByteCount: blockSize.byteCount).capacity)
  }

  /// Whether anything is shared, or is about to be.
  var isSharing: Bool { state.withLock { !$0.superblock.shared.isEmpty || !$0.newThrowaways.isEmpty } }

  /// Makes sure that there is room for an operation that begins to share blocks, or enters inodes in the catalog, and for the
  /// checkpoints that follow.
  ///
  /// - Throws: `.outOfSpace` where there is not, also after a checkpoint.
  func requireRoom() throws(ExtentFSError) {
    try health.requireWritable()
    if try hasRoomForSharing() { return }
    try checkpoint()
    try keepRoom()
  }

  /// As `requireRoom`, but without a checkpoint: to be called under `checkpoints`, by those who called that before.
  func keepRoom() throws(ExtentFSError) {
    guard try hasRoomForSharing() else {
      throw ExtentFSError(.outOfSpace, "the store is too full: what is deleted or trimmed makes room")
    }
  }

  private func hasRoomForSharing() throws(ExtentFSError) -> Bool {
    try raiseReserve { budget in
      let pending = editCount.load(ordering: .relaxed) - budget.merged
      return space.raiseReserve(
        to: reserveCount(
          forEdits: pending + Self.editCountMin, nodeCount: superblock.nodeBlockCount, isSharing: true))
    }
  }

  /// Runs `raise` under the lock of the budget, and again each time the device had to grow: that happens without the lock, which a
  /// checkpoint takes while it holds those of all writers. False where there is no room.
  private func raiseReserve(
    _ raise: (EditBudget) -> SpaceMap.ReserveChange
  ) throws(ExtentFSError) -> Bool {
    while true {
      switch editBudget.withLock({ raise($0) }) {
      case .raised: return true
      case .noRoom: return false
      case .deviceIsShort(let blockCount): guard try space.grow(unlessFree: blockCount) else { return false }
      }
    }
  }

  /// Refuses a checkpoint that may not find the blocks that it takes, as long as readers keep some that were given up: it would fail
  /// for good. Under `checkpoints`.
  func requireCheckpointRoom() throws(ExtentFSError) {
    guard heldBlockCount.load(ordering: .relaxed) > 0 else { return }
    let pending = pendingEditCount
    let need = reserveCount(forEdits: pending, nodeCount: superblock.nodeBlockCount, isSharing: isSharing) / 3
    // Growing is left to the checkpoint itself.
    guard space.freeBlockCount + space.growableBlockCount >= need else {
      throw ExtentFSError(
        .outOfSpace, "the store is full, and what was given up is still being read: it has to wait for that")
    }
  }

  /// The height of the tree of a volume with millions of extents.
  private static var usualHeight: UInt64 { 4 }
  /// For the catalog's nodes, and changes by threads that had looked at the budget just before it was used up.
  private static var reserveBlockCount: UInt64 { 32 }
  /// The budget that every checkpoint gives, whether there is room for it or not.
  private static var editCountMin: UInt64 { 128 }

  /// Whether the reserve is not enough for another change.
  @inline(__always)
  var isEditBudgetUsedUp: Bool {
    // Orders nothing: a few changes too many do no harm.
    editCount.load(ordering: .relaxed) >= editBudgetEnd.load(ordering: .relaxed)
  }

  /// Counts a change of `blockCount` blocks, which is one extent, or several where it is longer than one can be.
  @inline(__always)
  func countEdit(_ blockCount: UInt64) {
    editCount.wrappingIncrement(by: 1 + blockCount >> 32, ordering: .relaxed)
  }

  /// A checkpoint begins, which merges all changes until now. Called while nobody can make one.
  func freezeEditBudget() { editBudget.withLock { $0.frozen = editCount.load(ordering: .relaxed) } }

  /// A checkpoint is durable: sets the reserve for what there is now.
  func updateReserve() {
    editBudget.withLock { budget in
      budget.merged = budget.frozen
      budget.nodeCount = superblock.nodeBlockCount
      let pending = editCount.load(ordering: .relaxed) - budget.merged
      let count = max(2 * pending, Self.editCountMin)
      space.setReserve(reserveCount(forEdits: count, nodeCount: budget.nodeCount, isSharing: isSharing))
      editBudgetEnd.store(budget.merged + count, ordering: .relaxed)
    }
    deadBlockLimit.store(deadBlockCountMax, ordering: .relaxed)
  }

  /// How many changes wait for a checkpoint.
  var pendingEditCount: UInt64 {
    editBudget.withLock { editCount.load(ordering: .relaxed).minusOrZero($0.merged) }
  }

  /// Makes room for more changes: raises the reserve, or where there is too little free for that, runs a checkpoint. To be
  /// called where the budget is used up, without any lock.
  func extendEditBudget() throws(ExtentFSError) {
    try health.requireWritable()
    let isRaised = try raiseReserve { budget in
      guard isEditBudgetUsedUp else { return .raised }
      let count = max(2 * (editCount.load(ordering: .relaxed) - budget.merged), Self.editCountMin)
      let change = space.raiseReserve(
        to: reserveCount(forEdits: count, nodeCount: budget.nodeCount, isSharing: isSharing))
      if case .raised = change { editBudgetEnd.store(budget.merged + count, ordering: .relaxed) }
      return change
    }
    if !isRaised { try checkpoint { self.isEditBudgetUsedUp } }
  }
}
