internal import Bytes
internal import Devices

/// What is to be different about a volume; nil for what stays.
package struct VolumeAttributes: Sendable, Hashable {
  /// Whether writes to it are refused.
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

/// What is to be different about a store as a whole; nil for what stays.
package struct StoreAttributes: Sendable, Hashable {
  /// The volume that the empty name of an export stands for; empty for none.
  package var defaultVolume: String?
  /// The length in bytes that the store's file does not grow beyond; 0 for none. A file that is longer stays so, and does not grow.
  package var limitByteCount: UInt64?

  package init(defaultVolume: String? = nil, limitByteCount: UInt64? = nil) {
    self.defaultVolume = defaultVolume
    self.limitByteCount = limitByteCount
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

extension EngineOptions {
  /// Up to how many blocks a device with the store of `superblock` grows.
  func limitBlockCount(of superblock: Superblock) -> UInt64 {
    let own = superblock.limitByteCount == 0 ? UInt64.max : superblock.limitByteCount
    return min(own, limitByteCount ?? .max, UInt64(Int64.max)) >> superblock.geometry.blockSize.shift
  }
}
