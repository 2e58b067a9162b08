internal import Bytes
internal import Extents

/// Volumes, snapshots and clones come and go. Each operation is one checkpoint: it is durable, whole, when it returns, and has
/// not happened where it throws, unless the store refuses writes from then on.
///
/// Errors of all: `.nameTaken`, `.noSuchVolume`, `.invalidArgument` for a name that cannot be, `.busy` for what clients use,
/// `.outOfSpace` where there is no room for what the operation may need, `.failed`
/// and `.device`.
///
/// Thread safety: any thread; they wait for each other, and for checkpoints.
extension Engine {
  /// Makes an empty volume, with one user. The first one becomes the default.
  ///
  /// - Parameter attributes: what is different about it from the start.
  package func createVolume(
    named name: String, byteCount: UInt64, createdSeconds: UInt64, _ attributes: VolumeAttributes = VolumeAttributes()
  ) throws(ExtentFSError) -> DiskVolume {
    try Self.checkSize(byteCount)
    var record = InodeRecord(kind: .volume, name: name, byteCount: byteCount, createdSeconds: createdSeconds)
    try record.set(attributes, blockSize)
    try requireRoom()
    return try checkpoints.withTurn { turn throws(ExtentFSError) in
      try health.requireWritable()
      try reserve.requireCheckpointRoom()
      try keepRoom()
      let plan = CheckpointPlan(turn.makeCatalogEditor())
      let inode = try plan.catalog.enter(record)
      if plan.catalog.superblock.defaultInode == 0 { plan.catalog.superblock.defaultInode = inode }
      try promise(record.promisedBlocks, to: name)
      try turn.write(plan)
      // It is there, so that nothing may fail any more: its record is not read, but the one that was written. Before the next
      // checkpoint begins, nothing can have changed it.
      guard let record = try plan.catalog.record(of: inode),
        case .open(let volume) = volumes.open(inode, record, asOf: superblocks.newest.generation, userCount: 1)
      else { throw ExtentFSError.internalInconsistency("the created volume '\(name)' was not found") }
      return DiskVolume(self, volume)
    }
  }

  static func checkSize(_ byteCount: UInt64) throws(ExtentFSError) {
    guard byteCount > 0, byteCount <= UInt64(Int64.max) else {
      throw ExtentFSError(.invalidArgument, "a volume has from 1 to 2^63 - 1 bytes, not \(byteCount)")
    }
  }

  /// Takes snapshots of one or more volumes, or of snapshots, all at one instant. A snapshot is named for its volume,
  /// `vm1@monday` of `vm1`, and belongs to that; so does the snapshot of a snapshot.
  package func snapshot(
    _ pairs: [(volume: String, snapshot: String)], createdSeconds: UInt64
  ) throws(ExtentFSError) {
    try requireRoom()
    try checkpoints.run { plan throws(ExtentFSError) in
      try keepRoom()
      var copies: [Copy] = []
      for (volume, snapshot) in pairs {
        let source = try plan.catalog.find(existing: volume)
        guard VolumeName.volume(of: snapshot) == VolumeName.volume(of: volume) else {
          throw ExtentFSError(.invalidArgument, "a snapshot of '\(volume)' cannot be called '\(snapshot)'")
        }
        var record = InodeRecord(
          kind: .snapshot, name: snapshot, byteCount: source.record.byteCount, createdSeconds: createdSeconds)
        record.origin = source.record.kind == .snapshot ? source.record.origin : source.inode
        copies.append(Copy(from: source.inode, to: try plan.catalog.enter(record)))
      }
      plan.share(copies)
    }
  }

  /// Makes a volume that has what a snapshot, or a volume, has now.
  package func clone(
    _ source: String, as name: String, createdSeconds: UInt64
  ) throws(ExtentFSError) {
    try requireRoom()
    try checkpoints.run { plan throws(ExtentFSError) in
      try keepRoom()
      let found = try plan.catalog.find(existing: source)
      var record = InodeRecord(
        kind: .volume, name: name, byteCount: found.record.byteCount, createdSeconds: createdSeconds)
      record.origin = found.inode
      let inode = try plan.catalog.enter(record)
      try promise(found.record.reservedBlocks, to: name)
      plan.share([Copy(from: found.inode, to: inode)])
    }
  }

  /// Gives `volume` the contents and the size of `snapshot`, which must be one of it. What it had goes, as when a volume is deleted;
  /// snapshots stay.
  ///
  /// - Parameter force: also where clients use the volume. What they write meanwhile waits, and comes after.
  package func rollback(_ volume: String, to snapshot: String, force: Bool) throws(ExtentFSError) {
    try checkpoints.run { plan throws(ExtentFSError) in
      let target = try plan.catalog.find(existing: volume)
      let source = try plan.catalog.find(existing: snapshot)
      try requireWritable(target.record)
      guard source.record.kind == .snapshot else {
        throw ExtentFSError(.invalidArgument, "'\(snapshot)' is not a snapshot")
      }
      guard source.record.isSnapshot(of: target) else {
        throw ExtentFSError(
          .invalidArgument,
          "'\(snapshot)' is a snapshot of another volume than the one that is called '\(volume)' now; clone it to have its contents"
        )
      }
      let open = try hold(target, in: &plan, force: force)
      let isAligned = source.record.byteCount & UInt64(blockSize.byteCount - 1) == 0
      guard source.record.byteCount >= target.record.byteCount || isAligned || volumes.userCount(of: open.inode) == 0
      else {
        throw ExtentFSError(
          .busy, "'\(snapshot)' ends within a block, before the end of '\(volume)': its clients must disconnect first")
      }
      // What it is promised now may go only when the checkpoint is durable.
      try promise(source.record.reservedBlocks, to: volume)
      let catalog = plan.catalog
      let inode = try catalog.makeInode()
      plan.replacesContents = [target.inode]
      plan.finish = { writer throws(ExtentFSError) in
        guard var record = try catalog.record(of: target.inode), let source = try catalog.record(of: source.inode)
        else { throw Catalog.missing(target.inode) }
        try writer.retain(source.base)
        var old = InodeRecord(kind: .deleted, name: "", byteCount: record.byteCount, createdSeconds: 0)
        (old.base, old.mappedBlocks, old.reservedBlocks) = (record.base, record.mappedBlocks, record.reservedBlocks)
        try writer.detach(old, inode, "what '\(volume)' had before it was rolled back", catalog)
        record.base = source.base
        (record.mappedBlocks, record.reservedBlocks) = (source.mappedBlocks, source.reservedBlocks)
        record.setSize(source.byteCount, self.blockSize)
        try catalog.setRecord(record, of: target.inode)
      }
    }
    checkpointer.wake()
  }

  /// Renames a volume, with the snapshots that belong to it, or a snapshot.
  package func rename(_ name: String, to new: String) throws(ExtentFSError) {
    try checkpoints.run { plan throws(ExtentFSError) in
      let found = try plan.catalog.find(existing: name)
      try VolumeName.check(new, found.record.kind)
      var renamed = [(inode: found.inode, name: new)]
      if found.record.kind == .volume {
        for (inode, record) in try plan.catalog.catalog.snapshots(of: found) {
          let snapshot = new + record.name.dropFirst(name.count)
          try VolumeName.check(snapshot, .snapshot)
          renamed.append((inode, snapshot))
        }
      } else if VolumeName.volume(of: new) != VolumeName.volume(of: name) {
        throw ExtentFSError(.invalidArgument, "the snapshot '\(name)' cannot become one of another volume, '\(new)'")
      }
      for (inode, name) in renamed { try plan.catalog.rename(inode, to: name) }
    }
  }

  /// Makes a volume larger or smaller. What it has behind the new end is lost.
  ///
  /// - Parameters:
  ///   - old: the size that it must have, as far as the caller has decided by that; nil for any.
  ///   - allowsSmaller: whether it may become smaller.
  ///   - force: smaller also where clients use the volume, who then get errors behind its new end.
  /// - Throws: also `.invalidArgument` where it would become smaller and may not, or where the smaller size is no multiple of the
  ///   block size; `.busy` where it does not have the size `old`.
  package func resize(
    _ name: String, to byteCount: UInt64, from old: UInt64? = nil, allowsSmaller: Bool, force: Bool
  ) throws(ExtentFSError) {
    try Self.checkSize(byteCount)
    try checkpoints.run { plan throws(ExtentFSError) in
      var (inode, record) = try plan.catalog.find(existing: name)
      try requireWritable(record)
      guard old == nil || old == record.byteCount else {
        throw ExtentFSError(.busy, "'\(name)' has \(record.byteCount) bytes by now; its size was changed meanwhile")
      }
      let before = record.byteCount
      record.setSize(byteCount, blockSize)
      guard byteCount < before else { return try plan.catalog.setRecord(record, of: inode) }
      guard allowsSmaller else {
        throw ExtentFSError(
          .invalidArgument,
          "'\(name)' has \(before) bytes, and all past \(byteCount) would be lost; allow it to shrink if that is intended"
        )
      }
      guard byteCount & UInt64(blockSize.byteCount - 1) == 0 else {
        throw ExtentFSError(
          .invalidArgument,
          "'\(name)' can be made smaller to a multiple of \(blockSize.byteCount) bytes, not to \(byteCount)")
      }
      // Nobody changes what lies behind the end while it is taken away.
      _ = try hold((inode, record), in: &plan, force: force)
      try plan.catalog.setRecord(record, of: inode)
      let cut = blockSize.blocks(toHold: byteCount)..<ExtentRecord.blockLimit
      // What cannot be read cannot be cut off either.
      _ = try record.base.forEachPiece(in: cut, nodes) { _, _ in true }
      let catalog = plan.catalog
      plan.finish = { writer throws(ExtentFSError) in
        guard var record = try catalog.record(of: inode) else { throw Catalog.missing(inode) }
        var holes = Overlay()
        holes.replace(cut, with: .hole)
        let merged = try record.base.merging(holes, owner: inode, self.nodes, writer)
        if let damage = merged.damage { throw damage }
        record.base = merged.base
        record.count(mapped: merged.mapped, reserved: merged.reserved)
        try catalog.setRecord(record, of: inode)
      }
    }
  }

  /// Takes away names. What they stood for can no longer be opened when this returns, and its space comes back in the background.
  ///
  /// - Parameters:
  ///   - withSnapshots: also the snapshots that belong to the volumes.
  ///   - force: also where clients use them, who then get errors.
  /// - Returns: what is gone, each once: what had the names that were given, and behind each its snapshots.
  @discardableResult
  package func delete(
    _ names: [String], withSnapshots: Bool = false, force: Bool
  ) throws(ExtentFSError) -> [CatalogEntry] {
    let gone = try checkpoints.run { plan throws(ExtentFSError) in
      let gone = try plan.catalog.catalog.find(names, withSnapshots: withSnapshots)
      for found in gone {
        _ = try hold(found, in: &plan, force: force)
        try plan.catalog.remove(nameOf: found.record)
        try plan.catalog.setRecord(found.record.withoutName, of: found.inode)
        if plan.catalog.superblock.defaultInode == found.inode { plan.catalog.superblock.defaultInode = 0 }
      }
      let catalog = plan.catalog
      plan.finish = { writer throws(ExtentFSError) in
        for (inode, old) in gone {
          guard let record = try catalog.record(of: inode) else { throw Catalog.missing(inode) }
          let name = "the deleted \(old.kind == .snapshot ? "snapshot" : "volume") '\(old.name)'"
          try writer.detach(record, inode, name, catalog)
        }
      }
      return gone
    }
    checkpointer.wake()
    return gone
  }

  /// What `delete` would delete, as of the last checkpoint.
  package func findDoomed(_ names: [String], withSnapshots: Bool) throws(ExtentFSError) -> [String] {
    let (catalog, epoch) = superblocks.catalog
    defer { withExtendedLifetime(epoch) {} }
    return try catalog.find(names, withSnapshots: withSnapshots).map(\.record.name)
  }

  // MARK: What they share

  /// Opens what the operation is about, and lets nobody change it, nor open it, until the checkpoint has ended. Whether somebody
  /// uses it is looked at in the moment from which on nobody can begin to.
  ///
  /// - Throws: `.busy` where clients use it, unless forced.
  func hold(
    _ found: CatalogEntry, in plan: inout CheckpointPlan, force: Bool
  ) throws(ExtentFSError) -> OpenVolume {
    let (inode, record) = found
    try plan.catalog.requireComplete(inode, record)
    let volume = try volumes.hold(inode, record, force: force)
    plan.held.append(volume)
    return volume
  }

  /// Makes sure that there is room for an operation that begins to share blocks, or enters inodes in the catalog, and for the
  /// checkpoints that follow.
  ///
  /// - Throws: `.outOfSpace` where there is not, also after a checkpoint.
  func requireRoom() throws(ExtentFSError) {
    try health.requireWritable()
    if try reserve.hasRoomForSharing() { return }
    try checkpoint()
    try keepRoom()
  }

  /// As `requireRoom`, but without a checkpoint: to be called during a turn, by those who called that before.
  func keepRoom() throws(ExtentFSError) {
    guard try reserve.hasRoomForSharing() else {
      throw ExtentFSError(.outOfSpace, "the store is too full: what is deleted or trimmed makes room")
    }
  }

  private func requireWritable(_ record: InodeRecord) throws(ExtentFSError) {
    guard record.access == .writable else {
      throw ExtentFSError(.readOnly, "'\(record.name)' is read-only")
    }
  }

  /// Promises `count` blocks of zeroes to `name`, which the checkpoint that is about to begin makes reserved.
  func promise(_ count: UInt64, to name: String) throws(ExtentFSError) {
    guard space.promise(count) else {
      throw ExtentFSError(.outOfSpace, "the store has no room to reserve \(count) blocks for '\(name)'")
    }
  }
}
