internal import Atomics
internal import Bytes

extension Engine {
  /// Opens the volume or snapshot `name`, for one more user, who calls `closeVolume` in the end; nil where there is none.
  ///
  /// Waits for no checkpoint, but for one that rolls it back, deletes it, makes it smaller or read-only: who opens it gets what
  /// that makes of it.
  package func openVolume(named name: String) throws(ExtentFSError) -> DiskVolume? {
    while true {
      let (catalog, epoch) = currentCatalog()
      defer { withExtendedLifetime(epoch) {} }
      guard let found = try catalog.find(name) else { return nil }
      try makeCatalogEditor().requireComplete(found.inode, found.record)
      switch adopt(found.inode, found.record, asOf: catalog.superblock.generation, userCount: 1) {
      case .open(let volume): return volume
      case .isHeld: checkpoints.withLock {}
      // A checkpoint that ended meanwhile may have changed what was found.
      case .isOld: continue
      }
    }
  }

  /// Counts more users of a volume that is open.
  package func addUsers(_ count: Int, to volume: DiskVolume) {
    state.withLock { $0.volumes[volume.inode]?.userCount += count }
  }

  /// Ends one use of a volume.
  package func closeVolume(_ volume: DiskVolume) {
    state.withLock { state in
      guard let open = state.volumes[volume.inode], open.volume === volume else { return }
      state.volumes[volume.inode]?.userCount = max(open.userCount - 1, 0)
    }
  }

  /// Whether the inode is open, and read-only since something of it can be neither read nor merged.
  package func isDamaged(_ inode: UInt64) -> Bool { state.withLock { $0.volumes[inode]?.volume }?.isDamaged ?? false }

  /// How many use the inode.
  func userCount(of inode: UInt64) -> Int { state.withLock { $0.volumes[inode]?.userCount ?? 0 } }

  /// How many use the volume or snapshot `inode`, by inode, of all that anybody uses.
  package var userCounts: [UInt64: Int] {
    state.withLock { $0.volumes.mapValues(\.userCount).filter { $0.value > 0 } }
  }

  /// The catalog as of the last checkpoint. Its nodes stay as they are as long as the epoch lives.
  func currentCatalog() -> (catalog: Catalog, epoch: Epoch) {
    let (superblock, epoch) = state.withLock { ($0.superblock, $0.epoch) }
    return (Catalog(nodes: nodes, superblock: superblock), epoch)
  }

  /// What the catalog says of the volume or snapshot `name`; nil where there is none.
  package func findVolume(named name: String) throws(ExtentFSError) -> (inode: UInt64, record: InodeRecord)? {
    let (catalog, epoch) = currentCatalog()
    defer { withExtendedLifetime(epoch) {} }
    return try catalog.find(name)
  }

  /// What the catalog says of `inode`, or would say of a throwaway that no checkpoint has written; nil where there is none.
  package func volumeRecord(of inode: UInt64) throws(ExtentFSError) -> InodeRecord? {
    if let record = state.withLock({ $0.newThrowaways[inode] }) { return record }
    let (catalog, epoch) = currentCatalog()
    defer { withExtendedLifetime(epoch) {} }
    return try catalog.record(of: inode)
  }

  /// What the catalog says of all inodes that can be read, in order: volumes, snapshots, throwaways, and what is deleted and not yet
  /// given back.
  package func volumeRecords() throws(ExtentFSError) -> [(inode: UInt64, record: InodeRecord)] {
    let (catalog, epoch) = currentCatalog()
    defer { withExtendedLifetime(epoch) {} }
    var all: [(inode: UInt64, record: InodeRecord)] = []
    try catalog.forEachReadable({ self.noteUnreadableInodes($0) }) { inode, record in
      all.append((inode, record))
      return true
    }
    try catalog.forEachUnreadableName { self.noteUnreadableNames($0) }
    return all
  }

  func noteUnreadableInodes(_ error: ExtentFSError) {
    damage.note(
      "a part of the tree of inodes", error, "the volumes and snapshots that it has cannot be opened", isInCatalog: true
    )
  }

  private func noteUnreadableNames(_ error: ExtentFSError) {
    damage.note(
      "a part of the tree of names", error, "names are looked for in the inodes until one is changed there",
      isInCatalog: true)
  }

  /// Which store it is.
  package var uuid: StoreUUID { state.withLock { $0.superblock.uuid } }

  /// The newest durable superblock.
  package var superblock: Superblock { state.withLock { $0.superblock } }

  /// The inode of the default volume; nil where there is none.
  package var defaultInode: UInt64? {
    let inode = state.withLock { $0.superblock.defaultInode }
    return inode == 0 ? nil : inode
  }

  /// The open volume `inode`, which has `userCount` users more; opens it where it is not.
  func adopt(
    _ inode: UInt64, _ record: InodeRecord, delta: Delta = Delta(), asOf generation: UInt64, userCount: Int
  ) -> Adoption {
    state.withLock { state in
      guard state.superblock.generation == generation else { return .isOld }
      var open = state.volumes[inode] ?? OpenVolume(volume: makeVolume(inode, record, delta: delta, in: state.epoch))
      if open.isHeld { return .isHeld }
      open.userCount += userCount
      state.volumes[inode] = open
      return .open(open.volume)
    }
  }

  func makeVolume(
    _ inode: UInt64, _ record: InodeRecord, delta: Delta = Delta(), in epoch: Epoch
  ) -> DiskVolume {
    DiskVolume(inode: inode, record, engine: self, view: View(inode: inode, record, active: delta, epoch: epoch))
  }
}

/// What came of an attempt to open a volume.
enum Adoption {
  /// It is open.
  case open(DiskVolume)
  /// The catalog is no longer the one that it was found in.
  case isOld
  /// A checkpoint is making something else of it.
  case isHeld
}
