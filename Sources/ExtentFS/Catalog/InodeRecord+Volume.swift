internal import Bytes

/// What a record means for the volume or snapshot that it describes.
extension InodeRecord {
  /// Whether a name leads to it.
  var hasName: Bool { !isTransient && !name.isEmpty }

  /// Whether programs without snapshots could not read the record.
  var needsSnapshots: Bool { kind != .volume || isThrowaway || quotaBlocks > 0 || reservationBlocks > 0 }

  /// Where the inode's blocks are.
  var base: ExtentBase {
    get { ExtentBase(inline: inlineExtents, root: extents) }
    set { (inlineExtents, extents) = (newValue.inline, newValue.root) }
  }

  /// Counts blocks that became mapped or reserved; a damaged store's numbers stay possible.
  mutating func count(mapped: Int64, reserved: Int64) {
    mappedBlocks = UInt64(clamping: Int64(mappedBlocks) + mapped)
    reservedBlocks = UInt64(clamping: Int64(reservedBlocks) + reserved)
  }

  /// What may be done with the inode.
  var access: VolumeAccess { kind == .deleted ? .deleted : isReadOnly || kind == .snapshot ? .readOnly : .writable }

  /// Changes the size. No more can be reserved than that.
  mutating func setSize(_ byteCount: UInt64, _ blockSize: BlockSize) {
    self.byteCount = byteCount
    reservationBlocks = min(reservationBlocks, blockSize.blocks(toHold: byteCount))
  }

  /// Whether it is a snapshot that belongs to `volume`: it was taken of that one, and not of an earlier one that had its name.
  func isSnapshot(of volume: CatalogEntry) -> Bool {
    kind == .snapshot && volume.record.kind == .volume && origin == volume.inode
      && name.hasPrefix(volume.record.name + "@")
  }

  var withoutName: InodeRecord {
    var record = self
    record.name = ""
    return record
  }

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
