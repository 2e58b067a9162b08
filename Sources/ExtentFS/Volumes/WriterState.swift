internal import Bytes
internal import Extents

/// What the writers of one volume share, under the volume's lock.
struct WriterState {
  /// Blocks that were mapped since the last checkpoint began, and are no more: free when the next one is durable.
  var superseded: [PhysicalRun] = []
  /// How many blocks those are.
  private(set) var supersededCount: UInt64 = 0
  /// How many blocks changed since then, each counted as often as it did.
  private(set) var changedCount: UInt64 = 0
  /// How many blocks the tree maps.
  private var treeBlockCount: UInt64 = 0

  /// How many blocks the next checkpoint frees, at most. What the tree has is not looked up for that.
  var deadBlockCountMax: UInt64 { supersededCount + min(changedCount, treeBlockCount) }

  /// How many blocks writers have mapped since the last checkpoint began, at most; and before that, while one runs.
  private var chargedCount: UInt64 = 0
  private var frozenChargedCount: UInt64 = 0
  /// How many blocks the volume may map; 0 for no limit.
  private(set) var quota: UInt64
  /// How many blocks it is promised in all, those included that it maps.
  private var reservation: UInt64

  /// Whether a checkpoint makes something else of the volume, so that every change waits for its end.
  var isExclusive = false
  /// Whether all that waits for a checkpoint is what the last ones could not merge.
  private(set) var hasOnlyCarried = false
  /// The logical blocks of writes that have taken blocks which are promised, and do not map them yet. No two overlap.
  private(set) var promisesInFlight: [Range<UInt64>] = []

  /// How many blocks the volume maps, at most.
  private var mappedCountMax: UInt64 { treeBlockCount &+ frozenChargedCount &+ chargedCount }

  /// Of a volume as the catalog has it.
  init(_ record: InodeRecord) {
    (treeBlockCount, quota, reservation) = (record.mappedBlocks, record.quotaBlocks, record.reservationBlocks)
  }

  // MARK: Changes

  /// Takes note of a run of a overlay that the volume does not map any more, where that was of blocks. True, for `forEachRun`.
  mutating func supersede(_ run: Run<BlockLocation>) -> Bool {
    if let block = run.value.physicalBlock {
      superseded.append(PhysicalRun(block: block, count: run.positions.length))
      supersededCount += run.positions.length
    }
    return true
  }

  /// Takes note of a change of `count` blocks, `charge` of which the volume did not map, at most.
  mutating func didChange(_ count: UInt64, charge: UInt64) {
    chargedCount = chargedCount &+ charge
    changedCount = changedCount &+ count
    hasOnlyCarried = false
  }

  /// Whether the quota is enough for `count` more blocks.
  func allows(_ count: UInt64) -> Bool { quota == 0 || count == 0 || mappedCountMax &+ count <= quota }

  // MARK: Checkpoints

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

  /// The checkpoint could not merge `changes`, which wait for the next one.
  mutating func carry(_ changes: Overlay, isUnchanged: Bool) {
    hasOnlyCarried = isUnchanged
    chargedCount &+= changes.physicalRuns.reduce(0) { $0 &+ $1.count }
  }

  /// A checkpoint has ended, which made `record` of the volume.
  mutating func didMerge(_ record: InodeRecord) {
    (treeBlockCount, quota, reservation) = (record.mappedBlocks, record.quotaBlocks, record.reservationBlocks)
    frozenChargedCount = 0
  }

  // MARK: Promises

  /// Takes note of a write to logical blocks from `start` on, of up to `count`, that takes blocks which are promised: those of the
  /// first `reserved`, which are reserved zeroes, or what is left of the volume's reservation.
  ///
  /// - Returns: the logical blocks that have a promise; nil where none is left for the first one.
  mutating func beginPromise(at start: UInt64, count: UInt64, reserved: UInt64) -> Range<UInt64>? {
    // A promise counts once: where another write to the same block is under way, that one has it.
    var free = count
    for taken in promisesInFlight where taken.upperBound > start {
      free = min(free, taken.lowerBound.saturatingSubtract(start))
    }
    let takenCount = promisesInFlight.reduce(0) { $0 &+ $1.length }
    let left = reservation.saturatingSubtract(mappedCountMax &+ takenCount)
    let promised = min(free, max(reserved, left))
    guard promised > 0 else { return nil }
    promisesInFlight.append(start..<start + promised)
    return start..<start + promised
  }

  /// The write that `beginPromise` took note of has mapped its blocks, or given them back.
  mutating func endPromise(_ promise: Range<UInt64>) {
    guard let index = promisesInFlight.firstIndex(of: promise) else { return }
    promisesInFlight.swapAt(index, promisesInFlight.count - 1)
    promisesInFlight.removeLast()
  }
}
