internal import Bytes

/// The open volumes of a store, and how many users each has.
///
/// Invariant: a volume is in the table from the moment on at which somebody can change it until a checkpoint has ended that found it
/// without users and without changes, or deleted.
///
/// Thread safety: any thread. The table's lock is held only to look up and to count.
final class VolumeTable: Sendable {
  private struct Entry {
    var volume: OpenVolume
    var userCount = 0
    /// Whether the running checkpoint makes something else of it, so that nobody may open it until that has ended.
    var isHeld = false
  }

  private let entries = Locked<[UInt64: Entry]>(rank: .volumeTable, [:])
  private let superblocks: SuperblockState
  private let parts: OpenVolumeParts

  init(_ superblocks: SuperblockState, _ parts: OpenVolumeParts) {
    self.superblocks = superblocks
    self.parts = parts
  }

  // MARK: Looking

  var all: [OpenVolume] { entries.withLock { $0.values.map(\.volume) } }

  var inodes: Set<UInt64> { entries.withLock { Set($0.keys) } }

  var count: Int { entries.withLock { $0.count } }

  /// The open volume `inode`; nil where it is not open.
  subscript(inode: UInt64) -> OpenVolume? { entries.withLock { $0[inode]?.volume } }

  /// How many use the inode.
  func userCount(of inode: UInt64) -> Int { entries.withLock { $0[inode]?.userCount ?? 0 } }

  // MARK: Users

  /// The volume `inode`, with `userCount` users more; opens it where it is not.
  ///
  /// - Parameter generation: of the superblock by which `record` was found.
  func open(
    _ inode: UInt64, _ record: InodeRecord, overlay: Overlay = Overlay(), asOf generation: UInt64, userCount: Int
  ) -> Adoption {
    entries.withLock { entries in
      let newest = superblocks.epoch
      guard newest.generation == generation else { return .isOld }
      var entry = entries[inode] ?? Entry(volume: makeVolume(inode, record, overlay, newest.epoch))
      if entry.isHeld { return .isHeld }
      entry.userCount += userCount
      entries[inode] = entry
      return .open(entry.volume)
    }
  }

  private func makeVolume(_ inode: UInt64, _ record: InodeRecord, _ overlay: Overlay, _ epoch: Epoch) -> OpenVolume {
    OpenVolume(record, view: View(inode: inode, record, active: overlay, epoch: epoch), parts)
  }

  /// Counts more users of a volume that is open.
  func addUsers(_ count: Int, to inode: UInt64) { entries.withLock { $0[inode]?.userCount += count } }

  /// Ends one use of `volume`.
  func removeUser(of volume: OpenVolume) {
    entries.withLock { entries in
      guard let entry = entries[volume.inode], entry.volume === volume else { return }
      entries[volume.inode]?.userCount = max(entry.userCount - 1, 0)
    }
  }

  // MARK: What checkpoints do

  /// Opens the volume `inode`, and lets nobody else open it until `release`. Whether somebody uses it is looked at in the moment from
  /// which on nobody can begin to.
  ///
  /// - Throws: `.busy` where it has users, unless forced.
  func hold(_ inode: UInt64, _ record: InodeRecord, force: Bool) throws(ExtentFSError) -> OpenVolume {
    try entries.withLock { entries throws(ExtentFSError) in
      var entry = entries[inode] ?? Entry(volume: makeVolume(inode, record, Overlay(), superblocks.epoch.epoch))
      guard force || entry.userCount <= 0 else {
        throw ExtentFSError(
          .busy, "'\(record.name)' is in use by \(entry.userCount) \(entry.userCount == 1 ? "client" : "clients")")
      }
      entry.isHeld = true
      entries[inode] = entry
      return entry.volume
    }
  }

  /// Ends what `hold` began: the checkpoint has ended, or was refused.
  func release(_ held: [OpenVolume]) {
    guard !held.isEmpty else { return }
    entries.withLock { entries in for volume in held { entries[volume.inode]?.isHeld = false } }
  }

  /// Takes the locks of the writers of all volumes, and runs `body` while nobody can change or open one: what is written to a volume
  /// that is opened later comes after. The locks stay taken.
  func lockWriters<Result>(_ body: () -> Result) -> (volumes: [OpenVolume], result: Result) {
    var locked: [UInt64: OpenVolume] = [:]
    while true {
      var opened: [OpenVolume] = []
      let result = entries.withLock { entries -> Result? in
        opened = entries.filter { locked[$0.key] == nil }.map(\.value.volume)
        return opened.isEmpty ? body() : nil
      }
      if let result { return (locked.values.sorted { $0.inode < $1.inode }, result) }
      // Nobody else takes the locks of several volumes, so that their order does not matter.
      for volume in opened {
        volume.lockWriters()
        locked[volume.inode] = volume
      }
    }
  }

  /// Takes a volume out that nobody uses.
  func removeIfUnused(_ volume: OpenVolume) {
    entries.withLock { entries in
      if entries[volume.inode]?.userCount == 0 { entries[volume.inode] = nil }
    }
  }

  /// Takes a volume out that is gone.
  func remove(_ volume: OpenVolume) { entries.withLock { _ = $0.removeValue(forKey: volume.inode) } }

  /// Takes all volumes out: the store closes.
  func removeAll() -> [OpenVolume] {
    entries.withLock { entries in
      defer { entries = [:] }
      return entries.values.map(\.volume)
    }
  }
}

/// What came of an attempt to open a volume.
enum Adoption {
  /// It is open.
  case open(OpenVolume)
  /// The catalog is no longer the one that it was found in.
  case isOld
  /// A checkpoint is making something else of it.
  case isHeld
}
