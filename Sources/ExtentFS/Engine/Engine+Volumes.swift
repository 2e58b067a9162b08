internal import Atomics
internal import Bytes
internal import Devices

extension Engine {
  /// The volume `name`; nil where there is none.
  package func volume(named name: String) throws(ExtentFSError) -> DiskVolume<Device>? {
    if let open = state.withLock({ $0.volumes.values.first { $0.name == name } }) { return open }
    // No checkpoint may use the catalog's nodes again meanwhile, nor begin without the volume.
    return try checkpoints.withLock { () throws(ExtentFSError) in
      let catalog = Catalog(nodes: nodes, superblock: state.withLock { $0.superblock })
      guard let found = try catalog.find(name).found else { return nil }
      return adopt(found.inode, found.record, delta: Delta())
    }
  }

  /// What the catalog says of all volumes, by inode.
  package func volumeRecords() throws(ExtentFSError) -> [(inode: UInt64, record: InodeRecord)] {
    // No checkpoint may use the catalog's nodes again meanwhile.
    try checkpoints.withLock { () throws(ExtentFSError) in
      let catalog = Catalog(nodes: nodes, superblock: state.withLock { $0.superblock })
      var all: [(inode: UInt64, record: InodeRecord)] = []
      try catalog.forEach { inode, record throws(ExtentFSError) in
        all.append((inode, record))
        return true
      }
      return all
    }
  }

  /// Which store it is.
  package var uuid: StoreUUID { state.withLock { $0.superblock.uuid } }

  /// The inode of the default volume; nil where there is none.
  package var defaultInode: UInt64? {
    let inode = state.withLock { $0.superblock.defaultInode }
    return inode == 0 ? nil : inode
  }

  /// Makes an empty volume. The first one becomes the default. It is durable when this returns.
  ///
  /// - Throws: `.invalidArgument` where the name is taken, or cannot be one, or the size is 0 or above 2^63 - 1.
  package func createVolume(
    named name: String, byteCount: UInt64, createdSeconds: UInt64
  ) throws(ExtentFSError) -> DiskVolume<Device> {
    guard !name.isEmpty, name.utf8.count <= InodeRecord.maximumNameByteCount else {
      throw ExtentFSError(.invalidArgument, "a volume's name has 1 to \(InodeRecord.maximumNameByteCount) bytes")
    }
    guard byteCount > 0, byteCount <= UInt64(Int64.max) else {
      throw ExtentFSError(.invalidArgument, "a volume has from 1 to 2^63 - 1 bytes, not \(byteCount)")
    }
    let record = InodeRecord(kind: .volume, name: name, byteCount: byteCount, createdSeconds: createdSeconds)
    return try checkpoints.withLock { () throws(ExtentFSError) in
      try journal.requireUsable()
      let superblock = state.withLock { $0.superblock }
      let (key, found) = try Catalog(nodes: nodes, superblock: superblock).find(name)
      guard found == nil else { throw ExtentFSError(.invalidArgument, "there is a volume '\(name)' already") }
      let inode = superblock.nextInode
      guard inode > 0, inode < .max, try Catalog(nodes: nodes, superblock: superblock).record(of: inode) == nil else {
        throw ExtentFSError(.damaged, "the superblock says that the next inode is \(inode), which cannot be")
      }
      let (frozen, cut) = freeze()
      do throws(ExtentFSError) {
        try merge(frozen, cut, CatalogChanges(inodes: [inode: record], names: [key: inode])) {
          $0.nextInode = inode + 1
          if $0.defaultInode == 0 { $0.defaultInode = inode }
        }
      } catch {
        journal.fail("a checkpoint failed: \(error)")
        throw error
      }
      // Before the next checkpoint begins: it would cut the journal without freezing what is written to the volume.
      return adopt(inode, record, delta: Delta())
    }
  }

  /// The open volume `inode`; opens it where it is not.
  func adopt(_ inode: UInt64, _ record: InodeRecord, delta: Delta) -> DiskVolume<Device> {
    state.withLock { state in
      if let open = state.volumes[inode] { return open }
      let base = ExtentBase(inline: record.inlineExtents, root: record.extents)
      let view = View(
        inode: inode, byteCount: record.byteCount, active: delta, frozen: nil, base: base, epoch: state.epoch)
      let volume = DiskVolume(inode: inode, record, engine: self, view: view)
      state.volumes[inode] = volume
      state.inodes[inode] = record
      return volume
    }
  }
}
