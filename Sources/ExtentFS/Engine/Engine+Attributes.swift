internal import Bytes
internal import Devices

extension Engine {
  /// Changes what is said in `change`, in one step that is durable when it returns.
  ///
  /// - Parameter force: makes it read-only also where clients use it, whose writes then fail.
  /// - Throws: as the operations of the namespace do; `.outOfSpace` where there is no room for what is to be reserved.
  package func setAttributes(
    of name: String, _ change: VolumeAttributes, force: Bool
  ) throws(ExtentFSError) {
    try checkpoints.run { plan throws(ExtentFSError) in
      var (inode, record) = try plan.catalog.find(existing: name)
      guard record.kind == .volume else {
        throw ExtentFSError(.readOnly, "'\(name)' is a snapshot, which never changes")
      }
      if change.isReadOnly == true, !record.isReadOnly { _ = try hold((inode, record), in: &plan, force: force) }
      let before = record.promisedBlocks
      try record.set(change, blockSize)
      try plan.catalog.setRecord(record, of: inode)
      switch change.isDefault {
      case true?: plan.catalog.superblock.defaultInode = inode
      case false? where plan.catalog.superblock.defaultInode == inode: plan.catalog.superblock.defaultInode = 0
      case false?, nil: break
      }
      if record.promisedBlocks > before { try promise(record.promisedBlocks - before, to: name) }
    }
  }
}

extension Engine {
  /// Changes what is said in `change`, in one step that is durable, and kept to, when this returns.
  ///
  /// - Throws: as the operations of the namespace do; `.invalidArgument` for a limit of a store on a block device, which has a length
  ///   of its own.
  package func setAttributes(_ change: StoreAttributes) throws(ExtentFSError) {
    guard change.limitByteCount == nil || device.canGrow else { throw Self.limitOnDevice }
    try checkpoints.run { plan throws(ExtentFSError) in
      if let name = change.defaultVolume {
        plan.catalog.superblock.defaultInode = name.isEmpty ? 0 : try plan.catalog.find(existing: name).inode
      }
      if let byteCount = change.limitByteCount { plan.catalog.superblock.setLimit(byteCount) }
    }
  }
}
