internal import Atomics
internal import Bytes
internal import Extents

/// One volume of an open store: reads, writes, zeroes and trims on its bytes.
///
/// Thread safety: all operations may be called from any thread. Readers load the published view, and take no lock but, for
/// the time of a look-up, those of the caches of nodes and of checksums. Writers
/// put their data on the device outside every lock, then, under `writers`, append the record to the journal and publish the
/// view, so that both have the same order. Lock order: `writers`, then the journal's. A writer never holds `writers` while
/// it waits for room in the journal, for blocks or for a checkpoint.
///
/// Each block changes whole or not at all; an operation on several blocks may be seen block by block.
package final class DiskVolume: Sendable {
  /// The volume's number within the store.
  package let inode: UInt64
  /// Its name, as messages say it.
  package var name: String { names.withLock { $0 } }
  let engine: Engine
  let current: ManagedAtomic<View>
  let writers: Locked<WriterState>
  let openRun: OpenRun
  /// The name, which a rename changes.
  let names: Locked<String>
  /// Why something of it can be neither read nor merged; nil where nothing is known of that.
  private let damage = Locked<ExtentFSError?>(nil)

  /// What writers share.
  struct WriterState {
    /// Blocks that were mapped since the last checkpoint began, and are no more: free when the next one is durable.
    var superseded: [PhysicalRun] = []
    /// How many blocks those are.
    var supersededCount: UInt64 = 0
    /// How many blocks changed since then, each counted as often as it did.
    var changedCount: UInt64 = 0
    /// How many blocks the tree maps.
    var treeBlockCount: UInt64 = 0

    /// How many blocks the next checkpoint frees, at most. What the tree has is not looked up for that.
    var deadBlockCountMax: UInt64 { supersededCount + min(changedCount, treeBlockCount) }

    /// How many blocks writers have mapped since the last checkpoint began, at most; and before that, while one runs.
    var chargedCount: UInt64 = 0
    var frozenChargedCount: UInt64 = 0
    /// How many blocks the volume may map; 0 for no limit.
    var quota: UInt64
    /// How many blocks it is promised in all, those included that it maps.
    var reservation: UInt64

    /// Whether all that waits for a checkpoint is what the last ones could not merge.
    var hasOnlyCarried = false
    /// The logical blocks of writes that have taken blocks which are promised, and do not map them yet. No two overlap.
    var promisesInFlight: [Range<UInt64>] = []

    /// How many blocks the volume maps, at most.
    var mappedCountMax: UInt64 { treeBlockCount &+ frozenChargedCount &+ chargedCount }

    /// Of a volume as the catalog has it.
    init(_ record: InodeRecord) {
      (treeBlockCount, quota, reservation) = (record.mappedBlocks, record.quotaBlocks, record.reservationBlocks)
    }

    /// A checkpoint begins.
    mutating func startAgain() {
      (superseded, supersededCount, changedCount, hasOnlyCarried) = ([], 0, 0, false)
      (frozenChargedCount, chargedCount) = (frozenChargedCount &+ chargedCount, 0)
    }

    /// The checkpoint that began when the state was `before` has come to nothing: what there was then waits again.
    mutating func takeBack(_ before: WriterState, isUnchanged: Bool) {
      superseded = before.superseded + superseded
      supersededCount += before.supersededCount
      changedCount = changedCount &+ before.changedCount
      // What was charged before stays where `startAgain` has put it, and counts as much there.
      hasOnlyCarried = before.hasOnlyCarried && isUnchanged
    }

    /// Takes note of a run of a delta that the volume does not map any more, where that was of blocks. True, for `forEachRun`.
    mutating func supersede(_ run: Run<DeltaTarget>) -> Bool {
      if let block = run.value.physicalBlock {
        superseded.append(PhysicalRun(block: block, count: run.positions.length))
        supersededCount += run.positions.length
      }
      return true
    }

    /// A checkpoint has ended, which made `record` of the volume.
    mutating func didMerge(_ record: InodeRecord) {
      (treeBlockCount, quota, reservation) = (record.mappedBlocks, record.quotaBlocks, record.reservationBlocks)
      frozenChargedCount = 0
    }

    /// Whether the quota is enough for `count` more blocks.
    func allows(_ count: UInt64) -> Bool { quota == 0 || count == 0 || mappedCountMax &+ count <= quota }
  }

  init(inode: UInt64, _ record: InodeRecord, engine: Engine, view: View) {
    self.inode = inode
    names = Locked(record.name)
    self.engine = engine
    current = ManagedAtomic(view)
    writers = Locked(WriterState(record))
    let commits = engine.commits
    openRun = OpenRun(engine.space) { commits.syncCount }
  }

  deinit {
    do throws(ExtentFSError) {
      try openRun.returnRest()
    } catch {
      engine.health.fail(.freeing, error)
    }
  }

  var blockSize: BlockSize { engine.blockSize }

  /// The volume's size in bytes.
  package var byteCount: UInt64 { current.load(ordering: .acquiring).byteCount }

  /// The unit of reading and writing that costs least, in bytes: a block.
  package var preferredByteCount: Int { blockSize.byteCount }

  /// Makes everything durable that completed before this call, on this volume and all others: one sync of the device.
  package func flush() throws(ExtentFSError) {
    let view = current.load(ordering: .acquiring)
    guard view.access != .deleted else { throw gone }
    // What is thrown away need not be durable.
    if view.isJournaled { try engine.commit() }
  }

  /// What may be done with it.
  package var access: VolumeAccess { current.load(ordering: .acquiring).access }

  /// Whether something of it can be neither read nor merged: it is read-only then.
  package var isDamaged: Bool { damage.withLock { $0 != nil } }

  /// Takes note of what the checkpoint that runs has found: nil where it could merge everything.
  func noteDamage(_ error: ExtentFSError?) {
    let wasDamaged = damage.withLock { damage in
      defer { damage = error }
      return damage != nil
    }
    if let error {
      engine.damage.note(
        "volume '\(name)'", key: damageKey, error, "it is read-only, and what lies below is not read")
    } else if wasDamaged {
      engine.damage.forget(damageKey)
    }
  }

  /// Takes note of what a read has met, unless more is known of the volume.
  func noteUnreadable(_ error: ExtentFSError) {
    guard error.isUnreadable, !isDamaged else { return }
    engine.damage.note("volume '\(name)'", key: damageKey, error, "what lies there is not read")
  }

  private var damageKey: String { DamageRegister.key(ofInode: inode) }

  /// It is gone, and with it all that is known of its damage.
  func forgetDamage() { engine.damage.forget(damageKey) }

  /// Why it cannot be copied or compared.
  var incomplete: ExtentFSError {
    ExtentFSError(
      .damaged,
      "volume '\(name)' has changes that cannot be merged, since a part of its tree cannot be read: it can be neither copied nor compared"
    ).naming(volume: name)
  }

  var gone: ExtentFSError { ExtentFSError(.deleted, "volume '\(name)' was deleted").naming(volume: name) }

  /// Publishes `view`. Under `writers` only.
  func publish(_ view: View) {
    // Pairs with the acquiring loads of readers.
    current.store(view, ordering: .releasing)
  }
}
