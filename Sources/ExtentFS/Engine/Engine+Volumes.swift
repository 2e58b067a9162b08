internal import Bytes

extension Engine {
  /// Opens the volume or snapshot `name`, for one more user, who calls `closeVolume` in the end; nil where there is none.
  ///
  /// Waits for no checkpoint, but for one that rolls it back, deletes it, makes it smaller or read-only: who opens it gets what
  /// that makes of it.
  package func openVolume(named name: String) throws(ExtentFSError) -> DiskVolume? {
    while true {
      let (catalog, epoch) = superblocks.catalog
      defer { withExtendedLifetime(epoch) {} }
      guard let found = try catalog.find(name) else { return nil }
      try checkpoints.requireComplete(found.inode, found.record)
      switch volumes.open(found.inode, found.record, asOf: catalog.superblock.generation, userCount: 1) {
      case .open(let volume): return DiskVolume(self, volume)
      case .isHeld: checkpoints.waitForEnd()
      // A checkpoint that ended meanwhile may have changed what was found.
      case .isOld: continue
      }
    }
  }

  /// Counts more users of a volume that is open.
  package func addUsers(_ count: Int, to volume: DiskVolume) {
    volumes.addUsers(count, to: volume.inode)
  }

  /// Ends one use of a volume.
  package func closeVolume(_ volume: DiskVolume) {
    volumes.removeUser(of: volume.state)
  }

  /// Whether the inode is open, and read-only since something of it can be neither read nor merged.
  package func isDamaged(_ inode: UInt64) -> Bool { volumes[inode]?.isDamaged ?? false }

  /// What the catalog says of the volume or snapshot `name`; nil where there is none.
  package func findVolume(named name: String) throws(ExtentFSError) -> (inode: UInt64, record: InodeRecord)? {
    let (catalog, epoch) = superblocks.catalog
    defer { withExtendedLifetime(epoch) {} }
    return try catalog.find(name)
  }

  /// What the catalog says of `inode`, or would say of a throwaway that no checkpoint has written; nil where there is none.
  package func volumeRecord(of inode: UInt64) throws(ExtentFSError) -> InodeRecord? {
    if let record = ephemerals.record(of: inode) { return record }
    let (catalog, epoch) = superblocks.catalog
    defer { withExtendedLifetime(epoch) {} }
    return try catalog.record(of: inode)
  }

  /// What the catalog says of all inodes that can be read, in order: volumes, snapshots, throwaways, and what is deleted and not yet
  /// given back.
  package func volumeRecords() throws(ExtentFSError) -> [(inode: UInt64, record: InodeRecord)] {
    let (catalog, epoch) = superblocks.catalog
    defer { withExtendedLifetime(epoch) {} }
    var all: [(inode: UInt64, record: InodeRecord)] = []
    try catalog.forEachReadable({ damage.noteUnreadableInodes($0) }) { inode, record in
      all.append((inode, record))
      return true
    }
    try catalog.forEachUnreadableName { damage.noteUnreadableNames($0) }
    return all
  }

  /// Which store it is.
  package var uuid: StoreUUID { superblocks.newest.uuid }

  /// The newest durable superblock.
  package var superblock: Superblock { superblocks.newest }

  /// The inode of the default volume; nil where there is none.
  package var defaultInode: UInt64? {
    let inode = superblocks.newest.defaultInode
    return inode == 0 ? nil : inode
  }

  /// How many blocks reserved zeroes are promised.
  package var promisedBlockCount: UInt64 { space.promisedBlockCount }
}
