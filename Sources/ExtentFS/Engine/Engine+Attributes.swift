internal import Devices

/// What is to be different about a volume; nil for what stays.
package struct VolumeAttributes: Sendable, Hashable {
  /// Whether nobody can write to it.
  package var isReadOnly: Bool?
  /// How many bytes the volume may map; 0 for no limit. Where it maps more already, it may not grow.
  package var quotaByteCount: UInt64?
  /// How many bytes the volume is promised, those included that it maps; 0 for none.
  package var reservationByteCount: UInt64?

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
      if let isReadOnly = change.isReadOnly {
        if isReadOnly { try requireUnused(inode, record, force: force) }
        record.isReadOnly = isReadOnly
      }
      if let byteCount = change.quotaByteCount { record.quotaBlocks = blockSize.blocks(toHold: byteCount) }
      let before = record.promisedBlocks
      if let byteCount = change.reservationByteCount { record.reservationBlocks = blockSize.blocks(toHold: byteCount) }
      guard record.quotaBlocks == 0 || record.reservationBlocks <= record.quotaBlocks,
        record.reservationBlocks <= blockSize.blocks(toHold: record.byteCount)
      else {
        throw ExtentFSError(.invalidArgument, "'\(name)' cannot reserve more than its size and its quota allow")
      }
      try plan.catalog.setRecord(record, of: inode)
      if record.promisedBlocks > before { try promise(record.promisedBlocks - before, to: name) }
    }
  }
}
