internal import Extents

extension CatalogEditor {
  /// The inode that has the name `name`.
  func find(existing name: String) throws(ExtentFSError) -> CatalogEntry {
    guard let found = try find(name).found else { throw VolumeName.missing(name) }
    try requireComplete(found.inode, found.record)
    return found
  }

  /// Adds an inode with the record `record`, under its name. Returns its number.
  func enter(_ record: InodeRecord) throws(ExtentFSError) -> UInt64 {
    try VolumeName.check(record.name, record.kind)
    try requireFree(record.name, for: record)
    let inode = try makeInode()
    try setRecord(record, of: inode)
    try enter(record.name, for: inode)
    return inode
  }

  /// Refuses `name` for `record` where something has it.
  private func requireFree(_ name: String, for record: InodeRecord) throws(ExtentFSError) {
    guard let (_, other) = try find(name).found else { return }
    guard record.kind == .snapshot, other.kind == .snapshot, record.origin != other.origin else {
      throw VolumeName.taken(name)
    }
    throw ExtentFSError(
      .nameTaken,
      "there is a snapshot '\(name)' already, of another volume that is or was called '\(VolumeName.volume(of: name))'; rename or delete that snapshot, or choose another name"
    )
  }

  /// Gives `inode` another name.
  func rename(_ inode: UInt64, to name: String) throws(ExtentFSError) {
    guard var record = try record(of: inode) else { throw Catalog.missing(inode) }
    try requireFree(name, for: record)
    try remove(nameOf: record)
    record.name = name
    try setRecord(record, of: inode)
    try enter(name, for: inode)
  }

  /// Makes `inode`, which has no name, one whose tree is given up in the background; or at once, where it has none.
  func detach(
    _ record: InodeRecord, _ inode: UInt64, _ writer: some TreeWriter
  ) throws(ExtentFSError) {
    for extent in record.inlineExtents {
      guard let block = extent.target.physicalBlock else { continue }
      try writer.freeData(PhysicalRun(block: block, count: UInt64(extent.length)))
    }
    guard !record.extents.isEmpty else { return try setRecord(nil, of: inode) }
    var left = record.withoutName
    (left.kind, left.isThrowaway) = (.deleted, false)
    (left.quotaBlocks, left.reservationBlocks) = (0, 0)
    try setRecord(left, of: inode)
  }
}
