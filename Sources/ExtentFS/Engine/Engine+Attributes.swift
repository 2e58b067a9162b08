internal import Bytes
internal import Devices

/// What is to be different about a volume; nil for what stays.
package struct VolumeAttributes: Sendable, Hashable {
  /// Whether nobody can write to it.
  package var isReadOnly: Bool?
  /// How many bytes the volume may map; 0 for no limit. Where it maps more already, it may not grow.
  package var quotaByteCount: UInt64?
  /// How many bytes the volume is promised, those included that it maps; 0 for none.
  package var reservationByteCount: UInt64?
  /// Whether the empty name of an export stands for it. Where it does not, false changes nothing.
  package var isDefault: Bool?

  /// Nothing is different.
  package init() {}
}

extension Engine {
  /// Changes what is said in `change`, in one step that is durable when it returns.
  ///
  /// - Parameter force: makes it read-only also where clients use it, whose writes then fail.
  /// - Throws: as the operations of the namespace do; `.outOfSpace` where there is no room for what is to be reserved.
  package func setAttributes(
    of name: String, _ change: VolumeAttributes, force: Bool
  ) throws(ExtentFSError) {
    try checkpoint { plan throws(ExtentFSError) in
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

extension InodeRecord {
  /// Changes what is said in `change`, but for what is not the volume's own.
  ///
  /// - Throws: `.invalidArgument` where more would be reserved than the size and the quota allow.
  mutating func set(_ change: VolumeAttributes, _ blockSize: BlockSize) throws(ExtentFSError) {
    if let isReadOnly = change.isReadOnly { self.isReadOnly = isReadOnly }
    if let byteCount = change.quotaByteCount { quotaBlocks = blockSize.blocks(toHold: byteCount) }
    if let byteCount = change.reservationByteCount { reservationBlocks = blockSize.blocks(toHold: byteCount) }
    guard quotaBlocks == 0 || reservationBlocks <= quotaBlocks, reservationBlocks <= blockSize.blocks(toHold: byteCount)
    else {
      throw ExtentFSError(.invalidArgument, "'\(name)' cannot reserve more than its size and its quota allow")
    }
  }
}
