internal import Bytes
package import Devices
internal import Extents

/// What space is asked for.
package enum SpacePurpose: Sendable {
  /// Blocks of volumes. They leave alone what is kept or promised.
  case data
  /// Blocks of volumes in place of reserved zeroes. They leave the reserve alone.
  case promised
  /// Nodes of trees. They come from places of their own and may use the reserve.
  case metadata
}

/// Which blocks of the device are free, and who gets them.
///
/// For each group in memory it knows two sets of blocks. *Committed* are those that the next superblock's trees reach;
/// *in use* are those, what the last durable superblock's trees reach, what was handed out since, and what was given up
/// but may not be used again yet. Allocation looks at the second set only, so that no block that a durable superblock
/// or a reader's view leads to is handed out. The life of a block:
///
/// ```
///        allocate          commit                release               reuse
///  free ----------> in use ------> in use and -----------> in use ----------------> free
///        <----------               committed               (no longer committed)
///        cancelAllocation
/// ```
///
/// Groups are read when they are first needed. As long as a group in memory has a free block, allocation reads nothing. A group
/// that cannot be read is passed over: none of its blocks is handed out or given back until the store is opened again.
///
/// Rules of the checkpoint thread, of which there is one at a time: `commit` and `release` change what the checkpoint
/// will say; `writeDirty` writes it; `didCommit` or `didFail` ends it. After `didFail` the committed sets are those of
/// the last durable superblock again, and what was allocated for the checkpoint is the caller's to return.
///
/// Thread safety: any thread. Lock order: `slowPath`, under which groups are read and the device grows, before `state`, under
/// which nothing waits.
package final class SpaceMap: Sendable {
  package let geometry: StoreGeometry
  let device: any BlockDevice
  let records: GroupRecords
  let state: Locked<SpaceState>
  let slowPath = Lock(rank: .spaceSlowPath)
  let damage: DamageRegister

  /// The space of a store on `device`.
  ///
  /// - Parameters:
  ///   - blockCount: the device's length in blocks: at least the superblock's, more where it grew before a crash.
  ///   - usedBlockCount: the superblock's: how many blocks its trees reach.
  ///   - limit: the length in blocks up to which the device is grown; nil to never grow it.
  ///   - records: the groups' records.
  ///   - damage: hears of groups that cannot be read.
  package init(
    device: any BlockDevice, geometry: StoreGeometry, blockCount: UInt64, usedBlockCount: UInt64,
    growingUpTo limit: UInt64?,
    records: GroupRecords, damage: DamageRegister = DamageRegister()
  ) throws(ExtentFSError) {
    guard blockCount <= UInt64(Int64.max) >> geometry.blockSize.shift else {
      throw ExtentFSError(.damaged, "a device cannot have \(blockCount) blocks")
    }
    let usable = geometry.usableBlockCount(inDeviceOf: blockCount)
    guard usedBlockCount <= usable else {
      throw ExtentFSError(.damaged, "\(usedBlockCount) blocks are in use on a device that has \(usable)")
    }
    self.device = device
    self.geometry = geometry
    self.records = records
    self.damage = damage
    state = Locked(
      rank: .spaceMap,
      SpaceState(
        geometry: geometry, discardByteCount: device.geometry.discardByteCount, blockCount: blockCount,
        usedBlockCount: usedBlockCount, limit: limit))
  }

  /// Sets the length in blocks up to which the device is grown. When this returns, nothing grows it beyond.
  package func setLimit(_ blockCount: UInt64) {
    guard state.withLock({ $0.limit.map { $0 != blockCount } ?? false }) else { return }
    slowPath.withLock { state.withLock { $0.setLimit(blockCount) } }
  }

  /// Whether the device grows for as long as its host lets it.
  package var isUnlimited: Bool { state.withLock { $0.isUnlimited } }

  /// The device's length in blocks, as the store uses it: the superblock's `blockCount`.
  package var blockCount: UInt64 { state.withLock { $0.blockCount } }

  /// How many groups there are: the superblock's `groupCount`.
  package var groupCount: UInt64 { state.withLock { $0.groupCount } }

  /// How many blocks the trees of the next superblock reach: its `usedBlockCount`.
  package var usedBlockCount: UInt64 { state.withLock { $0.usedCount } }

  /// How many blocks are free now, the reserve included, before the device grows.
  package var freeBlockCount: UInt64 { state.withLock { $0.freeCount } }

  /// How many blocks for data and nodes the device may grow by.
  package var growableBlockCount: UInt64 { state.withLock { $0.growableCount } }

  /// How many blocks data could have now, the growth of the device included.
  package var availableBlockCount: UInt64 {
    state.withLock { state in
      min((state.freeCount + state.growableCount).saturatingSubtract(state.reserve), state.unpromisedCount)
    }
  }

  /// Sets how many free blocks data must leave: what the next checkpoints may need.
  package func setReserve(_ blockCount: UInt64) { state.withLock { $0.reserve = blockCount } }
}

/// What the lock of a space map guards.
struct SpaceState {
  let geometry: StoreGeometry
  var blockCount: UInt64
  /// Free blocks of all groups, read or not, those of `metadataRun` included.
  var freeCount: UInt64
  var usedCount: UInt64
  /// `usedCount` before the running checkpoint changed it.
  var durableUsedCount: UInt64?
  var reserve: UInt64 = 0
  var promises = Promises()
  /// How many blocks for data and nodes the device can grow by.
  var growableCount: UInt64
  /// Whether the device grows for as long as its host lets it.
  private(set) var isUnlimited = false
  /// The fewest extents that a leaf of a tree has.
  let entriesPerNode: UInt64
  /// The length in blocks that the device is never grown beyond; nil where it cannot grow.
  private(set) var limit: UInt64?

  /// The groups in memory, by number, and in the order of their numbers.
  private(set) var groups: [UInt64: SpaceGroup] = [:]
  private(set) var ordered: ContiguousArray<SpaceGroup> = []
  /// Groups that cannot be read; they may overlap.
  private(set) var unreadable: [Range<UInt64>] = []
  /// Groups that the running checkpoint has changed.
  var changed: ContiguousArray<SpaceGroup> = []

  /// Where the search for data begins: a block.
  var cursor: UInt64 = 0
  /// Blocks set in `inUse`, kept together for nodes of trees.
  var metadataRun: Range<UInt64> = 0..<0
  /// The groups below this number are in memory, or had nothing free when they were looked at.
  var nextGroupToRead: UInt64 = 0
  /// Free pieces that the host has not got back.
  var trims: Trims
  /// Of the blocks from here on nobody has asked since the store was opened whether the host holds storage for free ones.
  var reclaimPosition: UInt64 = 0

  init(
    geometry: StoreGeometry, discardByteCount: UInt64, blockCount: UInt64, usedBlockCount: UInt64, limit: UInt64?
  ) {
    self.geometry = geometry
    trims = Trims(in: geometry, discardByteCount: discardByteCount)
    self.blockCount = blockCount
    usedCount = usedBlockCount
    freeCount = geometry.usableBlockCount(inDeviceOf: blockCount) - usedBlockCount
    growableCount = 0
    entriesPerNode = UInt64(NodeLayout(.extents, level: 0, blockByteCount: geometry.blockSize.byteCount).minimum)
    setLimit(limit)
  }

  mutating func setLimit(_ blockCount: UInt64?) {
    let most = UInt64(Int64.max) >> geometry.blockSize.shift
    limit = blockCount.map { min($0, most) }
    isUnlimited = limit == most
    noteLength()
  }

  /// To be called where `blockCount` has changed.
  mutating func noteLength() {
    let start = growthStart
    let grown = Swift.max(limit ?? 0, start)
    growableCount = geometry.usableBlockCount(inDeviceOf: grown) - geometry.usableBlockCount(inDeviceOf: start)
  }

  /// From which block on the device would grow by blocks that can be used: its end, or that of the last group where that cannot be
  /// read.
  var growthStart: UInt64 {
    guard !unreadable.isEmpty, let number = geometry.group(of: blockCount), isUnreadable(number) else {
      return blockCount
    }
    return geometry.firstBlock(ofGroup: number + 1)
  }

  func isUnreadable(_ group: UInt64) -> Bool { unreadable.contains { $0.contains(group) } }

  /// Passes over groups that cannot be read, and counts what is free: `recorded` are the groups that have records, with what these say.
  mutating func pass(over groups: [Range<UInt64>], _ recorded: [(group: UInt64, freeCount: UInt64)]) {
    unreadable = groups
    func usable(_ group: UInt64) -> UInt64 {
      UInt64(usableEnd(ofGroup: group)).saturatingSubtract(StoreGeometry.metadataBlocksPerGroup)
    }
    // What no record says anything of was never used.
    var fresh = geometry.usableBlockCount(inDeviceOf: blockCount)
    var free = metadataRun.length
    for group in ordered {
      free += UInt64(group.freeCount)
      fresh = fresh.saturatingSubtract(usable(group.number))
    }
    for (group, freeCount) in recorded where self.groups[group] == nil && !isUnreadable(group) {
      free += freeCount.saturatingSubtract(geometry.blocksPerGroup - UInt64(usableEnd(ofGroup: group)))
      fresh = fresh.saturatingSubtract(usable(group))
    }
    for range in groups.merged {
      let first = min(blockCount, geometry.firstBlock(ofGroup: range.lowerBound))
      let end = min(blockCount, geometry.firstBlock(ofGroup: range.upperBound))
      fresh = fresh.saturatingSubtract(
        geometry.usableBlockCount(inDeviceOf: end).saturatingSubtract(geometry.usableBlockCount(inDeviceOf: first)))
    }
    freeCount = free + fresh
    noteLength()
  }

  var groupCount: UInt64 { geometry.groupCount(inDeviceOf: blockCount) }

  /// The first position of `group` that lies past the device's end.
  func usableEnd(ofGroup group: UInt64) -> Int {
    Int(min(geometry.blocksPerGroup, blockCount.saturatingSubtract(geometry.firstBlock(ofGroup: group))))
  }

  mutating func insert(_ group: SpaceGroup) {
    groups[group.number] = group
    let index = ordered.index(ofGroup: group.number)
    ordered.insert(group, at: index)
  }

  /// Lets a group leave memory that is as it was read, and that allocation has not come to.
  mutating func remove(_ group: SpaceGroup) {
    guard group.isForTrimsOnly, group.isAsRead, group.number >= nextGroupToRead else { return }
    groups[group.number] = nil
    ordered.remove(at: ordered.index(ofGroup: group.number))
  }
}

extension [Range<UInt64>] {
  /// The same numbers, in order and without overlaps.
  fileprivate var merged: [Range<UInt64>] {
    sorted { $0.lowerBound < $1.lowerBound }.reduce(into: []) { all, range in
      guard let last = all.last, range.lowerBound <= last.upperBound else { return all.append(range) }
      all[all.count - 1] = last.lowerBound..<Swift.max(last.upperBound, range.upperBound)
    }
  }
}

extension ContiguousArray<SpaceGroup> {
  /// The index of the first group whose number is at least `number`.
  func index(ofGroup number: UInt64) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if self[middle].number >= number { high = middle } else { low = middle + 1 }
    }
    return low
  }
}

extension UInt64 {
  /// The difference, 0 where it would be negative.
  @inline(__always)
  func saturatingSubtract(_ other: UInt64) -> UInt64 { self > other ? self - other : 0 }
}

extension StoreGeometry {
  /// How many blocks a device of `blockCount` blocks has for data and nodes.
  package func usableBlockCount(inDeviceOf blockCount: UInt64) -> UInt64 {
    let groups = groupCount(inDeviceOf: blockCount)
    guard groups > 0 else { return 0 }
    let end = min(blockCount, firstBlock(ofGroup: groups))
    return end - headBlockCount - groups * Self.metadataBlocksPerGroup
  }
}
