internal import Atomics
internal import Bytes

/// The free blocks that are kept from data, so that checkpoints succeed on a full store, and the number of changes that they are enough
/// for.
///
/// Invariant: a change that was counted before its number reached the budget's end can be merged with the blocks that are kept.
///
/// Thread safety: any thread. Its lock is held for arithmetic only: where the device has to grow, that happens without it. What the
/// arithmetic is about is looked up under the lock, so that a checkpoint which ends meanwhile is seen.
final class MetadataReserve: Sendable {
  private struct Budget {
    /// The number of the last change that is in the trees.
    var merged: UInt64 = 0
    /// The number of the last change that the running checkpoint merges.
    var frozen: UInt64 = 0
    /// How many nodes the trees had when they were last written. While a checkpoint runs, the numbers that say so do not fit
    /// each other.
    var nodeCount: UInt64 = 0
  }

  private let budget = Locked(rank: .metadataReserve, Budget())
  /// The number of the last change that the reserve is enough for.
  private let end = ManagedAtomic<UInt64>(0)
  let edits: EditCounter
  private let space: SpaceMap
  private let superblocks: SuperblockState
  private let volumes: VolumeTable
  private let ephemerals: EphemeralClones
  private let retired: RetiredBlocks

  init(
    _ space: SpaceMap, _ superblocks: SuperblockState, _ volumes: VolumeTable, _ ephemerals: EphemeralClones,
    _ retired: RetiredBlocks, _ edits: EditCounter
  ) {
    (self.space, self.superblocks, self.volumes) = (space, superblocks, volumes)
    (self.ephemerals, self.retired, self.edits) = (ephemerals, retired, edits)
  }

  // MARK: The budget

  /// Whether the reserve is not enough for another change.
  @inline(__always)
  var isUsedUp: Bool {
    // Orders nothing: a few changes too many do no harm.
    edits.value >= end.load(ordering: .relaxed)
  }

  /// How many changes wait for a checkpoint.
  var pendingEditCount: UInt64 { budget.withLock { edits.value.saturatingSubtract($0.merged) } }

  /// A checkpoint begins, which merges all changes until now. Called while nobody can make one.
  func freeze() { budget.withLock { $0.frozen = edits.value } }

  /// A checkpoint is durable: sets the reserve for what there is now.
  func didCheckpoint() {
    budget.withLock { budget in
      budget.merged = budget.frozen
      budget.nodeCount = superblocks.newest.nodeBlockCount
      let count = max(2 * (edits.value - budget.merged), Self.editCountMin)
      space.setReserve(demand.blockCount(forEdits: count, nodeCount: budget.nodeCount))
      end.store(budget.merged + count, ordering: .relaxed)
    }
  }

  // MARK: Room

  /// Makes room for more changes, by raising the reserve. Called where it is used up, without any lock that writers need.
  ///
  /// - Returns: false where too little is free for that: a checkpoint has to run.
  func extend() throws(ExtentFSError) -> Bool {
    try raise { budget in
      guard isUsedUp else { return .raised }
      let count = max(2 * (edits.value - budget.merged), Self.editCountMin)
      let change = space.raiseReserve(to: demand.blockCount(forEdits: count, nodeCount: budget.nodeCount))
      if case .raised = change { end.store(budget.merged + count, ordering: .relaxed) }
      return change
    }
  }

  /// Whether there is room for an operation that begins to share blocks, or enters inodes in the catalog, and for the checkpoints
  /// that follow; keeps it where there is.
  func hasRoomForSharing() throws(ExtentFSError) -> Bool {
    try raise { budget in
      var demand = self.demand
      demand.isSharing = true
      let count = edits.value - budget.merged + Self.editCountMin
      return space.raiseReserve(
        to: demand.blockCount(forEdits: count, nodeCount: superblocks.newest.nodeBlockCount))
    }
  }

  /// Runs `raise` under the lock of the budget, and again each time the device had to grow: that happens without the lock, which a
  /// checkpoint takes while it holds those of all writers. False where there is no room.
  private func raise(_ raise: (Budget) -> SpaceMap.ReserveChange) throws(ExtentFSError) -> Bool {
    while true {
      switch budget.withLock({ raise($0) }) {
      case .raised: return true
      case .noRoom: return false
      case .deviceIsShort(let blockCount): guard try space.grow(unlessFree: blockCount) else { return false }
      }
    }
  }

  /// Refuses a checkpoint that may not find the blocks that it takes, as long as readers keep some that were freed: it would fail for
  /// good. Under the checkpoint's turn.
  func requireCheckpointRoom() throws(ExtentFSError) {
    guard !retired.isEmpty else { return }
    let need = demand.blockCount(forEdits: pendingEditCount, nodeCount: superblocks.newest.nodeBlockCount) / 3
    // Growing is left to the checkpoint itself.
    guard space.freeBlockCount + space.growableBlockCount >= need else {
      throw ExtentFSError(
        .outOfSpace, "the store is full, and readers still hold freed blocks: try again when they are done")
    }
  }

  /// Whether anything is shared, or is about to be.
  var isSharing: Bool { !superblocks.newest.shared.isEmpty || ephemerals.unwrittenCount > 0 }

  /// What a checkpoint needs blocks for, as things are now. Under the budget's lock where a budget is set by it.
  private var demand: ReserveDemand {
    ReserveDemand(
      blockSize: space.geometry.blockSize, volumeCount: UInt64(volumes.count), isSharing: isSharing,
      unwrittenCloneCount: UInt64(ephemerals.unwrittenCount), groupCount: space.groupCount)
  }

  /// The budget that every checkpoint gives, whether there is room for it or not.
  private static var editCountMin: UInt64 { 128 }
}
