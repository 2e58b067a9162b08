internal import Atomics
internal import Bytes
internal import Extents

/// An open volume as the store has it: the published view of its mapping, and what its writers share. What clients use is a
/// ``DiskVolume``, of which there may be several for one of these.
///
/// Invariants:
/// 1. Views are published under `writers` only, in the order of the journal's records.
/// 2. While the volume is exclusive, its mapping is changed by the running checkpoint alone.
///
/// Thread safety: any thread. Readers take no lock.
final class OpenVolume: Sendable {
  /// The volume's number within the store.
  let inode: UInt64
  /// The blocks that it has taken beforehand.
  let allocationWindow: AllocationWindow
  private let published: ManagedAtomic<View>
  private let writers: Locked<WriterState>
  private let names: Locked<String>
  /// Why something of it can be neither read nor merged; nil where nothing is known of that.
  private let unmerged = Locked<ExtentFSError?>(rank: .leaf, nil)
  private let edits: EditCounter
  private let damage: DamageRegister
  private let health: EngineHealth

  init(_ record: InodeRecord, view: View, _ parts: OpenVolumeParts) {
    inode = view.inode
    published = ManagedAtomic(view)
    writers = Locked(rank: .volumeWriters, WriterState(record))
    names = Locked(rank: .leaf, record.name)
    (edits, damage, health) = (parts.edits, parts.damage, parts.health)
    allocationWindow = AllocationWindow(parts.space, syncCount: parts.syncCount)
  }

  deinit {
    do throws(ExtentFSError) {
      try allocationWindow.returnRest()
    } catch {
      health.fail(.freeing, error)
    }
  }

  /// Its name, as messages say it.
  var name: String {
    get { names.withLock { $0 } }
    set { names.withLock { $0 = newValue } }
  }

  // MARK: The view

  /// Runs `body` with the newest view, which until that returns keeps the nodes and blocks that it maps from being used for anything
  /// else.
  @inline(__always)
  func withView<Result>(_ body: (View) throws(ExtentFSError) -> Result) throws(ExtentFSError) -> Result {
    // Pairs with the releasing store of `publish`.
    let view = published.load(ordering: .acquiring)
    defer { withExtendedLifetime(view) {} }
    return try body(view)
  }

  /// What of the newest view needs no lifetime.
  var byteCount: UInt64 { published.load(ordering: .acquiring).byteCount }
  var access: VolumeAccess { published.load(ordering: .acquiring).access }
  var isJournaled: Bool { published.load(ordering: .acquiring).isJournaled }

  /// Whether anything was changed that no checkpoint has begun to merge.
  var hasActiveChanges: Bool { !published.load(ordering: .acquiring).active.isEmpty }

  /// Whether `view` is the newest one.
  func isNewest(_ view: View) -> Bool { published.load(ordering: .acquiring) === view }

  /// Publishes `view`. Under `writers` only.
  private func publish(_ view: View) {
    // Pairs with the acquiring loads of readers.
    published.store(view, ordering: .releasing)
  }

  // MARK: Changes by writers

  /// Appends a record and publishes what it says, as one step for all other writers. Never waits for anything but the append.
  ///
  /// - Parameters:
  ///   - charge: how many blocks more the volume maps then, at most.
  ///   - epoch: the epoch in which that is true; nil for any.
  ///   - append: appends the record, given the newest view; not called for a volume without a journal.
  /// - Returns: what came of it, and how many blocks of the volume the next checkpoint frees, at most.
  func change(
    _ change: MappingChange, charge: UInt64, in epoch: Epoch?,
    _ append: (View) throws(ExtentFSError) -> AppendOutcome
  ) throws(ExtentFSError) -> (outcome: ChangeOutcome, deadBlockCount: UInt64) {
    var old: View?  // Leaves the lock before it goes, since blocks may be set free with it.
    defer { withExtendedLifetime(old) {} }
    return try writers.withLock { writer throws(ExtentFSError) in
      if writer.isExclusive { return (.isExclusive, 0) }
      let now = published.load(ordering: .relaxed)  // Stored only under this lock.
      old = now
      try requireChangeable(change.range, in: now)
      guard change.isCurrent(in: now) else { return (.hasChanged, 0) }
      if let epoch, epoch !== now.epoch { return (.chargeIsOld, 0) }
      guard writer.allows(charge) else { return (.overQuota, 0) }
      if now.isJournaled {
        switch try append(now) {
        case .appended: break
        case .journalIsFull: return (.journalIsFull, 0)
        case .refused: return (.refused, 0)
        }
      }
      let blocks = change.blocks
      writer.didChange(blocks.length, charge: charge)
      edits.count(blocks.length)
      var active = now.active
      now.active.forEachRun(in: blocks) { writer.supersede($0) }
      active.replace(blocks, with: change.target)
      publish(now.replacing(active: active, frozen: now.frozen))
      return (.done, writer.deadBlockCountMax)
    }
  }

  /// How many blocks the next checkpoint may free of it, at most.
  var deadBlockCountMax: UInt64 { writers.withLock { $0.deadBlockCountMax } }

  /// How many blocks it may map; 0 for no limit.
  var quota: UInt64 { writers.withLock { $0.quota } }

  /// Takes note of a write to logical blocks from `start` on that takes blocks which are promised; see `WriterState.beginPromise`.
  ///
  /// - Parameter reserved: how many blocks from `start` on are reserved zeroes in `view`.
  func beginPromise(at start: UInt64, count: UInt64, reserved: UInt64, asIn view: View) -> Range<UInt64>? {
    writers.withLock { writer in
      let reserved = stillReserved(start..<start + reserved, since: view)
      return writer.beginPromise(at: start, count: count, reserved: reserved)
    }
  }

  /// How many of `blocks`, from the first one on, are certainly reserved zeroes still, all of which were in `view`. Under `writers`.
  private func stillReserved(_ blocks: Range<UInt64>, since view: View) -> UInt64 {
    let now = published.load(ordering: .relaxed)
    if now === view { return blocks.length }
    guard now.epoch === view.epoch else { return 0 }
    var end = blocks.upperBound
    for overlay in [now.active, now.frozen ?? Overlay()] {
      overlay.forEachRun(in: blocks) { run in
        if run.value != .unwritten { end = min(end, run.positions.lowerBound) }
        return true
      }
    }
    return end - blocks.lowerBound
  }

  /// The write that `beginPromise` took note of has mapped its blocks, or given them back.
  func endPromise(_ promise: Range<UInt64>) { writers.withLock { $0.endPromise(promise) } }

  /// Whether a write has taken blocks which are promised, and does not map them yet.
  var hasPromisesInFlight: Bool { writers.withLock { !$0.promisesInFlight.isEmpty } }

  // MARK: What a checkpoint does

  /// Whether there is anything for a checkpoint to merge. What is carried along alone is no reason for one.
  var hasChanges: Bool {
    writers.withLock { !published.load(ordering: .relaxed).active.isEmpty && !$0.hasOnlyCarried }
  }

  /// Takes the lock of its writers, for a checkpoint that freezes all volumes at one instant.
  func lockWriters() { writers.lock() }
  func unlockWriters() { writers.unlock() }

  /// Makes the active overlay frozen; nil where nothing was changed. Between `lockWriters` and `unlockWriters`.
  func freeze() -> FrozenVolume? {
    let view = published.load(ordering: .relaxed)
    guard !view.active.isEmpty else { return nil }
    let writer = writers.assumingLocked { writer in
      defer { writer.startAgain() }
      return writer
    }
    publish(view.replacing(active: Overlay(), frozen: view.active))
    return FrozenVolume(
      volume: self, overlay: view.active, base: view.base, writer: writer, superseded: writer.superseded)
  }

  /// Makes every change wait until `endExclusive`. Between `lockWriters` and `unlockWriters`.
  func beginExclusiveLocked() { writers.assumingLocked { $0.isExclusive = true } }

  /// Makes every change wait until `endExclusive`, and returns what has changed since the last `freeze`.
  func beginExclusive() -> Overlay {
    writers.withLock { writer in
      writer.isExclusive = true
      return published.load(ordering: .relaxed).active
    }
  }

  /// What has changed since the last `freeze`.
  var activeChanges: Overlay { writers.withLock { _ in published.load(ordering: .relaxed).active } }

  /// Changes go on.
  func endExclusive() { writers.withLock { $0.isExclusive = false } }

  /// Puts what was frozen below what has changed since: the checkpoint has come to nothing.
  func thaw(_ part: FrozenVolume) {
    let replaced = writers.withLock { writer in
      let old = published.load(ordering: .relaxed)
      writer.takeBack(part.writer, isUnchanged: old.active.isEmpty)
      // What was frozen and has changed since is in no tree, and never will be.
      old.active.forEachRun(in: 0..<UInt64.max) { run in
        part.overlay.forEachRun(in: run.positions) { writer.supersede($0) }
        return true
      }
      publish(old.replacing(active: part.overlay.overlaid(by: old.active), frozen: nil))
      return old
    }
    // Leaves the lock before it goes.
    withExtendedLifetime(replaced) {}
  }

  /// Publishes what a durable checkpoint has made of the volume.
  ///
  /// - Parameters:
  ///   - record: the volume's record where that has changed; nil inside where it is gone.
  ///   - carried: what could not be merged of it.
  /// - Returns: what is to become of the volume in the table.
  func didCheckpoint(_ record: InodeRecord??, carried: Overlay?, in epoch: Epoch) -> CheckpointedVolume {
    var replaced: View?
    // Leaves the lock before it goes, since blocks may be set free with it.
    defer { withExtendedLifetime(replaced) {} }
    return writers.withLock { writer in
      let old = published.load(ordering: .relaxed)
      replaced = old
      let active = (carried ?? Overlay()).overlaid(by: old.active)
      if let carried { writer.carry(carried, isUnchanged: old.active.isEmpty) }
      let outcome: CheckpointedVolume = active.isEmpty ? .unchangedSince : .changedSince
      guard let changed = record else {
        // Where its record cannot be read, it keeps what it has.
        let access = isDamaged ? VolumeAccess.readOnly : old.access
        publish(old.replacing(active: active, frozen: nil, access: access, epoch: epoch))
        return outcome
      }
      guard let record = changed, record.kind != .deleted else {
        publish(.deleted(inode: inode))
        damage.forget(damageKey)
        return .isGone
      }
      writer.didMerge(record)
      name = record.name
      let access = isDamaged ? VolumeAccess.readOnly : record.access
      publish(View(inode: inode, record, access: access, active: active, epoch: epoch))
      return outcome
    }
  }

  /// Ends the volume without a checkpoint: one of which nothing is in the journal. Returns the blocks that it mapped and no tree has.
  func discard() -> [PhysicalRun] {
    let (view, gone) = writers.withLock { writer in
      let view = published.load(ordering: .relaxed)
      publish(.deleted(inode: inode))
      view.active.forEachRun(in: 0..<UInt64.max) { writer.supersede($0) }
      defer { writer.startAgain() }
      return (view, writer.superseded)
    }
    withExtendedLifetime(view) {}
    return gone
  }

  /// What the journal said was mapped, and is no more.
  func didRecover(superseded: [PhysicalRun]) { writers.withLock { $0.superseded = superseded } }

  // MARK: Damage

  /// Whether something of it can be neither read nor merged: it is read-only then.
  var isDamaged: Bool { unmerged.withLock { $0 != nil } }

  /// Takes note of what the checkpoint that runs has found: nil where it could merge everything.
  func noteDamage(_ error: ExtentFSError?) {
    let wasDamaged = unmerged.withLock { unmerged in
      defer { unmerged = error }
      return unmerged != nil
    }
    if let error {
      damage.note("volume '\(name)'", key: damageKey, error, "it is read-only, and what lies below is not read")
    } else if wasDamaged {
      damage.forget(damageKey)
    }
  }

  /// Takes note of what a read has met, unless more is known of the volume.
  func noteUnreadable(_ error: ExtentFSError) {
    guard error.isUnreadable, !isDamaged else { return }
    damage.note("volume '\(name)'", key: damageKey, error, "what lies there is not read")
  }

  private var damageKey: String { DamageRegister.key(ofInode: inode) }
}

/// What the store gives to each volume that is opened.
struct OpenVolumeParts: Sendable {
  var space: SpaceMap
  var edits: EditCounter
  var damage: DamageRegister
  var health: EngineHealth
  /// How many syncs of the device there have been.
  var syncCount: @Sendable () -> UInt64
}

/// What a checkpoint merges of one volume.
struct FrozenVolume {
  var volume: OpenVolume
  var overlay: Overlay
  var base: ExtentBase
  /// What its writers shared until then.
  var writer: WriterState
  /// Blocks that were mapped and superseded since the last checkpoint: no tree ever reached them.
  var superseded: [PhysicalRun]
}

/// What a volume is after a checkpoint.
enum CheckpointedVolume {
  /// It has changes that wait for the next one.
  case changedSince
  case unchangedSince
  /// It was deleted.
  case isGone
}
