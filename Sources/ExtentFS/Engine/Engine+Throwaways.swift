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
  package func makeThrowaway(of name: String) throws(ExtentFSError) -> DiskVolume {
    try requireRoom()
    return try checkpoints.withLock { () throws(ExtentFSError) in
      try health.requireWritable()
      try keepRoom()
      let (inode, _) = try makeCatalogEditor().find(existing: name)
      if state.withLock({ $0.volumes[inode]?.volume.current.load(ordering: .acquiring).active.isEmpty == false }) {
        try requireCheckpointRoom()
        try write(CheckpointPlan(makeCatalogEditor()))
      }
      if let volume = state.withLock({ $0.volumes[inode]?.volume }), volume.isDamaged { throw volume.incomplete }
      let catalog = makeCatalogEditor()
      let (_, source) = try catalog.find(existing: name)
      var record = source
      (record.kind, record.isReadOnly, record.isThrowaway) = (.volume, false, true)
      (record.name, record.origin) = ("", inode)
      (record.quotaBlocks, record.reservationBlocks) = (0, 0)
      let clone = try catalog.makeInode()
      let volume = state.withLock { state in
        state.superblock.nextInode = catalog.superblock.nextInode
        state.newThrowaways[clone] = record
        let volume = DiskVolume(
          inode: clone, record, engine: self, view: View(inode: clone, record, epoch: state.epoch))
        state.volumes[clone] = OpenVolume(volume: volume, userCount: 1)
        return volume
      }
      volume.names.withLock { $0 = "\(name)+" }
      return volume
    }
  }

  /// Lets go of a throwaway, which nobody uses any more. Its space comes back in the background.
  package func discardThrowaway(_ volume: DiskVolume) throws(ExtentFSError) {
    try checkpoints.withLock { () throws(ExtentFSError) in
      // One that was promoted meanwhile is a volume like any other.
      guard !volume.current.load(ordering: .acquiring).isJournaled else { return closeVolume(volume) }
      let view = volume.writers.withLock { writer in
        let view = volume.current.load(ordering: .relaxed)
        volume.publish(.deleted(inode: volume.inode))
        view.active.forEachRun(in: 0..<UInt64.max) { writer.supersede($0) }
        let gone = writer.superseded
        writer.startAgain()
        state.withLock { state in
          state.orphans += gone
          state.volumes[volume.inode] = nil
          // What no checkpoint has written is gone with that.
          if state.newThrowaways.removeValue(forKey: volume.inode) == nil {
            let name = "the throwaway '\(volume.name)'"
            state.deletions.waiting.append(Deletion(inode: volume.inode, name: name, mappedBlockCount: 0))
          }
        }
        return view
      }
      withExtendedLifetime(view) {}
      try volume.openRun.returnRest()
    }
    checkpointer.wake()
  }

  /// Makes a throwaway a volume that stays, called `name`. Those who use it go on. It is durable when this returns, with all that
  /// was written to it before.
  package func promote(_ volume: DiskVolume, as name: String) throws(ExtentFSError) {
    try requireRoom()
    try checkpoint { plan throws(ExtentFSError) in
      try VolumeName.check(name, .volume)
      guard try plan.catalog.find(name).found == nil else { throw VolumeName.taken(name) }
      let written = try plan.catalog.record(of: volume.inode)
      guard var record = written ?? state.withLock({ $0.newThrowaways[volume.inode] }), record.isThrowaway,
        volume.current.load(ordering: .acquiring).access != .deleted
      else { throw ExtentFSError(.noSuchVolume, "'\(volume.name)' is no throwaway, or is gone") }
      plan.held.append(volume)
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
