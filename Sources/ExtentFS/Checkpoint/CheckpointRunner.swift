internal import Atomics
internal import Bytes
internal import Devices
internal import Extents
internal import Logging

/// Merges what changed since the last checkpoint into the trees, and moves the superblock on. Writers go on meanwhile.
///
/// ```
/// freeze:   active overlay -> frozen, empty active; the journal is cut there
/// merge:    frozen overlays -> trees -> catalog -> bitmaps and checksum blocks -> space tree, all in free blocks
/// commit:   sync; superblock into the other slot; sync
/// publish:  views without the frozen overlays, in a new epoch; the journal's tail moves to the cut
/// ```
///
/// A checkpoint that fails is final: the store refuses writes until it is opened again, unless what was lacking is room. Then the
/// checkpoint has not been, and is tried again later.
///
/// Thread safety: any thread. One checkpoint runs at a time: whoever needs the catalog to stay as it is takes a turn.
final class CheckpointRunner: Sendable {
  /// Held for a turn; see ``CheckpointTurn``.
  private let turn = Lock(rank: .checkpointTurn)
  private let times = Locked(rank: .leaf, CheckpointTimes())
  /// Why the last checkpoint came to nothing, for a lack of room; nil where it did not, and where nothing was left to merge since.
  private let shortage = Locked<ExtentFSError?>(rank: .leaf, nil)

  /// How many blocks of one volume may wait to be free before a checkpoint is urgent, as of the last one.
  private let deadBlockLimit = ManagedAtomic<UInt64>(.max)

  let options: EngineOptions
  let device: any BlockDevice
  let geometry: StoreGeometry
  let nodes: NodeCache
  let space: SpaceMap
  let checksums: ChecksumTable
  let blocks: DataBlocks
  let health: EngineHealth
  let damage: DamageRegister
  let log: EngineLog
  let journal: JournalRing
  let commits: GroupCommit
  let superblocks: SuperblockState
  let spaceTree: SpaceTree
  let volumes: VolumeTable
  let ephemerals: EphemeralClones
  let deletions: DeletionQueue
  let reserve: MetadataReserve
  let retired: RetiredBlocks
  let trust: JournalTrust
  private let edits: EditCounter
  /// What the journal says of inodes whose records cannot be read, by inode.
  let strayChanges: [UInt64: Overlay]
  /// How much of the journal may be taken by what cannot be merged, in bytes.
  let carryByteCountMax: ManagedAtomic<UInt64>

  init(_ parts: EngineParts, options: EngineOptions) {
    self.options = options
    (device, geometry, nodes) = (parts.device, parts.superblock.geometry, parts.nodes)
    (space, checksums, spaceTree) = (parts.space, parts.checksums, parts.spaceTree)
    (health, damage, log, journal) = (parts.health, parts.damage, parts.log, parts.journal)
    strayChanges = parts.strayChanges
    carryByteCountMax = ManagedAtomic(parts.carryByteCountMax)
    blocks = DataBlocks(parts.device, parts.checksums, parts.superblock.geometry.blockSize)
    let commits = GroupCommit(device: parts.device, ring: parts.journal)
    self.commits = commits
    retired = RetiredBlocks()
    trust = JournalTrust(parts.damage)
    superblocks = SuperblockState(
      parts.superblock, slot: parts.slot, epoch: retired.firstEpoch(freeing: parts.space, parts.health, trust),
      nodes: parts.nodes)
    edits = EditCounter()
    volumes = VolumeTable(
      superblocks,
      OpenVolumeParts(
        space: parts.space, edits: edits, damage: parts.damage, health: parts.health,
        syncCount: { commits.syncCount }))
    ephemerals = EphemeralClones()
    deletions = DeletionQueue()
    reserve = MetadataReserve(parts.space, superblocks, volumes, ephemerals, retired, edits)
  }

  var blockSize: BlockSize { geometry.blockSize }

  /// How long checkpoints took since the store was opened.
  var checkpointTimes: CheckpointTimes { times.withLock { $0 } }

  /// Why what was to be merged waits for room; nil where nothing does.
  var lackOfRoom: ExtentFSError? { shortage.withLock { $0 } }

  // MARK: When one is worth its cost

  /// Whether writers should soon find more room in the journal: they wait only where it is full.
  var isJournalHalfFull: Bool { journal.usedByteCount > journal.byteCount / 2 }

  /// How many blocks may wait for a checkpoint that makes them free.
  var deadBlockCountMax: UInt64 {
    let room = space.availableBlockCount / 4
    let shift = blockSize.shift
    return max(min(space.usedBlockCount / 16 + (64 << 20) >> shift, room), (1 << 20) >> shift)
  }

  /// How many blocks the next checkpoint may free, at most.
  var deadBlockCount: UInt64 {
    // What a damaged store counts may be too much for a sum, of which nothing depends but when checkpoints run.
    let pendingCount = ephemerals.pendingFree.reduce(0) { $0 &+ $1.count }
    return volumes.all.reduce(pendingCount) { $0 &+ $1.deadBlockCountMax }
  }

  /// Whether a checkpoint should run soon, after a change due to which up to `deadBlockCount` blocks of one volume wait to be free.
  @inline(__always)
  func isUrgent(deadBlockCount: UInt64) -> Bool {
    isJournalHalfFull || deadBlockCount > deadBlockLimit.load(ordering: .relaxed)
  }

  /// What differs where something has changed.
  var activity: StoreActivity { StoreActivity(journalByteCount: journal.usedByteCount, editCount: edits.value) }

  // MARK: Turns

  /// Runs `body` while no checkpoint runs but those that it runs itself.
  func withTurn<Result>(
    _ body: (CheckpointTurn) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    try turn.withLock { () throws(ExtentFSError) in try body(CheckpointTurn(runner: self)) }
  }

  /// Returns when the checkpoint that runs has ended.
  func waitForEnd() { turn.withLock {} }

  /// Runs a checkpoint, unless one that ended meanwhile has made it needless.
  func run(if isNeeded: () -> Bool = { true }) throws(ExtentFSError) {
    try withTurn { turn throws(ExtentFSError) in
      try health.requireWritable()
      guard isNeeded() else { return }
      try reserve.requireCheckpointRoom()
      try write(CheckpointPlan(turn.makeCatalogEditor()), evenIfUnchanged: false)
    }
  }

  /// Runs a checkpoint that does what `prepare` plans. `prepare` runs before anything is changed, and may refuse.
  func run<Result>(
    planning prepare: (inout CheckpointPlan) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    try withTurn { turn throws(ExtentFSError) in
      try health.requireWritable()
      try reserve.requireCheckpointRoom()
      var plan = CheckpointPlan(turn.makeCatalogEditor())
      defer { volumes.release(plan.held) }
      let result = try prepare(&plan)
      try write(plan)
      return result
    }
  }

  /// Refuses an inode of which changes are missing.
  func requireComplete(_ inode: UInt64, _ record: InodeRecord) throws(ExtentFSError) {
    try CatalogEditor(superblocks.catalog.catalog, incomplete: Set(strayChanges.keys)).requireComplete(inode, record)
  }

  // MARK: One checkpoint

  /// Runs a checkpoint, whose failure is final, unless it finds no room. Under a turn.
  fileprivate func write(_ plan: CheckpointPlan, evenIfUnchanged: Bool = true) throws(ExtentFSError) {
    turn.requireHeld()
    guard evenIfUnchanged || hasChanges else {
      // Nothing waits for room any more.
      return shortage.withLock { $0 = nil }
    }
    defer { for volume in plan.held { volume.endExclusive() } }
    let (frozen, cut) = freeze(holding: plan.held)
    let start = ContinuousClock.now
    let writer = CheckpointWriter(self, after: plan.catalog.catalog.superblock)
    let refusal: ExtentFSError?
    do throws(ExtentFSError) {
      refusal = try merge(frozen, cut, plan, writer)
      let duration = ContinuousClock.now - start
      times.withLock { $0.note(duration) }
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
      try undo(frozen, writer, after: error)
      throw error
    }
    shortage.withLock { $0 = nil }
    if let refusal { throw refusal }
  }

  /// Takes a checkpoint back that ended with `error`, where that was for a lack of room; see `takeBack`.
  private func undo(
    _ frozen: [FrozenVolume], _ writer: CheckpointWriter, after error: ExtentFSError
  ) throws(ExtentFSError) {
    writer.batch.forget()
    guard error.isLackOfSpace, !writer.hasCarried, health.isWritable else { return health.fail(.checkpoint, error) }
    try takeBack(frozen, writer)
    shortage.withLock { $0 = error }
  }

  /// Whether there is anything to merge. What is carried along alone is no reason for a checkpoint.
  private var hasChanges: Bool { !ephemerals.pendingFree.isEmpty || volumes.all.contains { $0.hasChanges } }

  /// Makes the volumes' active overlays frozen, all at one instant, and cuts the journal there. The volumes `held` are exclusive from
  /// then on.
  private func freeze(holding held: [OpenVolume]) -> (frozen: [FrozenVolume], cut: JournalPosition) {
    let (volumes, cut) = volumes.lockWriters {
      space.freezePromises()
      return journal.cut()
    }
    defer { for volume in volumes { volume.unlockWriters() } }
    reserve.freeze()
    for volume in held { volume.beginExclusiveLocked() }
    return (volumes.compactMap { $0.freeze() }, cut)
  }

  /// Publishes what is durable: the superblock, then the volumes as they are by it.
  func publish(
    _ superblock: Superblock, slot: Int, _ plan: CheckpointPlan, _ carried: Carried, _ gone: [Deletion],
    retiring runs: [PhysicalRun]
  ) {
    spaceTree.didCommit(superblock.space)
    space.didCommit()
    space.setLimit(options.limitBlockCount(of: superblock))
    checksums.didCommit()
    retired.add(runs)
    let (epoch, old) = superblocks.commit(superblock, slot: slot, retiring: runs)
    // A volume that is opened from now on is found by the new superblock; those that were opened before are all in the table.
    ephemerals.didCheckpoint()
    deletions.append(gone)
    for volume in volumes.all {
      switch volume.didCheckpoint(
        plan.catalog.inodes[volume.inode], carried: carried.changes[volume.inode], in: epoch)
      {
      case .changedSince: break
      case .unchangedSince: volumes.removeIfUnused(volume)
      case .isGone: volumes.remove(volume)
      }
    }
    withExtendedLifetime(old) {}
  }

  /// What was published is whole: sets the reserve and the limits for what there is now, and frees the journal up to `cut`.
  func didPublish(_ cut: JournalPosition) {
    reserve.didCheckpoint()
    deadBlockLimit.store(deadBlockCountMax, ordering: .relaxed)
    journal.advanceTail(to: cut)
  }
}

/// The right to run checkpoints, and to rely on the catalog: nobody else changes it until the turn ends. Debug builds trap where it is
/// used after that. (It would be noncopyable if Swift 6.3.1 could specialise a closure that borrows such a value.)
struct CheckpointTurn {
  fileprivate let runner: CheckpointRunner

  /// The catalog as of the last checkpoint, to be changed by the next.
  func makeCatalogEditor() -> CatalogEditor {
    CatalogEditor(runner.superblocks.catalog.catalog, incomplete: Set(runner.strayChanges.keys))
  }

  /// Runs a checkpoint, whose failure is final, unless it finds no room.
  func write(_ plan: CheckpointPlan) throws(ExtentFSError) { try runner.write(plan) }
}

/// How far an open store has come: two that differ have a change between them. Not all changes are in the journal.
struct StoreActivity: Equatable {
  var journalByteCount: UInt64
  var editCount: UInt64
}
