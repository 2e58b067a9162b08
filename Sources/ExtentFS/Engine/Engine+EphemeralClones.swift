internal import Extents

/// Throwaways: clones without a name that go when nobody uses them any more, or when the store is opened the next time.
///
/// Making one writes nothing. Its changes are in no journal, so that a write costs the data alone, and a flush nothing. A
/// checkpoint puts it into the catalog, as any volume, so that its memory stays bounded; one that goes before has left no
/// trace on the device.
extension Engine {
  /// Makes a throwaway of what the volume or snapshot `name` has now; with one user. That of a snapshot, or of a volume that
  /// has not changed since the last checkpoint, costs no more than a look into the catalog; else one checkpoint.
  ///
  /// - Throws: `.noSuchVolume`, and what a checkpoint throws.
  package func makeEphemeralClone(of name: String) throws(ExtentFSError) -> DiskVolume {
    try requireRoom()
    return try checkpoints.withTurn { turn throws(ExtentFSError) in
      try health.requireWritable()
      try keepRoom()
      let (inode, _) = try turn.makeCatalogEditor().find(existing: name)
      if volumes[inode]?.hasActiveChanges == true {
        try reserve.requireCheckpointRoom()
        try turn.write(CheckpointPlan(turn.makeCatalogEditor()))
      }
      if let volume = volumes[inode], volume.isDamaged { throw volume.incomplete }
      let catalog = turn.makeCatalogEditor()
      let (_, source) = try catalog.find(existing: name)
      var record = source
      (record.kind, record.isReadOnly, record.isThrowaway) = (.volume, false, true)
      (record.name, record.origin) = ("", inode)
      (record.quotaBlocks, record.reservationBlocks) = (0, 0)
      let clone = try catalog.makeInode()
      superblocks.setNextInode(catalog.superblock.nextInode)
      ephemerals.add(record, of: clone)
      let generation = catalog.catalog.superblock.generation
      guard case .open(let volume) = volumes.open(clone, record, asOf: generation, userCount: 1) else {
        throw ExtentFSError.internalInconsistency(
          "the new inode \(clone) is open, or the catalog changed during a turn")
      }
      volume.name = "\(name)+"
      return DiskVolume(self, volume)
    }
  }

  /// Lets go of a throwaway, which nobody uses any more. Its space comes back in the background.
  package func discardEphemeralClone(_ volume: DiskVolume) throws(ExtentFSError) {
    try checkpoints.withTurn { _ throws(ExtentFSError) in
      // One that was promoted meanwhile is a volume like any other.
      guard !volume.state.isJournaled else { return closeVolume(volume) }
      let runs = volume.state.discard()
      volumes.remove(volume.state)
      // What no checkpoint has written is gone with that.
      if !ephemerals.remove(volume.inode, freeing: runs) {
        let name = "the throwaway '\(volume.name)'"
        deletions.append([Deletion(inode: volume.inode, name: name, mappedBlockCount: 0)])
      }
      try volume.state.allocationWindow.returnRest()
    }
    checkpointer.wake()
  }

  /// Makes a throwaway a volume that stays, called `name`. Those who use it go on. It is durable when this returns, with all that
  /// was written to it before.
  package func promote(_ volume: DiskVolume, as name: String) throws(ExtentFSError) {
    try requireRoom()
    try checkpoints.run { plan throws(ExtentFSError) in
      try VolumeName.check(name, .volume)
      guard try plan.catalog.find(name).found == nil else { throw VolumeName.taken(name) }
      let written = try plan.catalog.record(of: volume.inode)
      guard var record = written ?? ephemerals.record(of: volume.inode), record.isThrowaway,
        volume.access != .deleted
      else { throw ExtentFSError(.noSuchVolume, "'\(volume.name)' is not a throwaway, or is gone") }
      plan.held.append(volume.state)
      let catalog = plan.catalog
      try catalog.enter(name, for: volume.inode)
      try promise(record.reservedBlocks, to: name)
      plan.finish = { writer throws(ExtentFSError) in
        guard let merged = try catalog.record(of: volume.inode) else { throw Catalog.missing(volume.inode) }
        record = merged
        (record.isThrowaway, record.name) = (false, name)
        try catalog.setRecord(record, of: volume.inode)
      }
    }
  }
}
