/// The catalog as of the last checkpoint, and the changes that the next one makes to it.
///
/// One thread uses it, which runs a checkpoint.
final class CatalogEditor {
  let catalog: Catalog
  /// The superblock that will be written.
  var superblock: Superblock
  /// The changed inodes; nil for one that is gone.
  private(set) var inodes: [UInt64: InodeRecord?] = [:]
  /// The changed keys of names; nil for one that is gone.
  private var names: [UInt64: UInt64?] = [:]
  /// Whether `names` has all of them, since the tree of names cannot be read.
  private(set) var rebuildsNames = false
  /// By how much the blocks change that volumes are promised.
  private(set) var promisedChange: Int64 = 0
  /// Whether the store gets something that programs without snapshots do not know.
  private(set) var needsSnapshots = false

  /// Inodes of which the journal has changes that nobody has, since their records could not be read when it was.
  private let incomplete: Set<UInt64>

  init(_ catalog: Catalog, incomplete: Set<UInt64> = []) {
    self.catalog = catalog
    self.incomplete = incomplete
    superblock = catalog.superblock
  }

  // MARK: Inodes

  /// The record of `inode`, as it will be; nil where there is none.
  func record(of inode: UInt64) throws(ExtentFSError) -> InodeRecord? {
    if let changed = inodes[inode] { return changed }
    return try catalog.record(of: inode)
  }

  /// Refuses what must not be done to an inode of which changes are missing.
  func requireComplete(_ inode: UInt64, _ record: InodeRecord) throws(ExtentFSError) {
    guard incomplete.contains(inode) else { return }
    throw ExtentFSError(
      .damaged,
      "'\(record.name)' could not be read when the store was opened, and what the journal has of it is missing; open the store anew"
    )
  }

  /// Sets the record of `inode`; nil to remove it.
  func setRecord(_ record: InodeRecord?, of inode: UInt64) throws(ExtentFSError) {
    let old = try self.record(of: inode)
    // Each is at most 2^62, but a damaged store's may be many.
    promisedChange &+= Int64(clamping: record?.promisedBlocks ?? 0) - Int64(clamping: old?.promisedBlocks ?? 0)
    let transients: Int64 = (record?.isTransient ?? false ? 1 : 0) - (old?.isTransient ?? false ? 1 : 0)
    superblock.transientCount = superblock.transientCount.saturatingAdd(transients)
    if let record, record.needsSnapshots { needsSnapshots = true }
    inodes[inode] = .some(record)
  }

  /// A number for a new inode.
  func makeInode() throws(ExtentFSError) -> UInt64 {
    let inode = superblock.nextInode
    guard inode > 0, inode < .max, try record(of: inode) == nil else {
      throw ExtentFSError(.damaged, "the superblock has an invalid next inode, \(inode)")
    }
    superblock.nextInode = inode + 1
    return inode
  }

  // MARK: Names

  private func inode(atKey key: UInt64) throws(ExtentFSError) -> UInt64? {
    if let changed = names[key] { return changed }
    if rebuildsNames { return nil }
    do throws(ExtentFSError) {
      return try catalog.inode(atKey: key)
    } catch {
      guard error.isUnreadable else { throw error }
      try rebuildNames()
      return names[key] ?? nil
    }
  }

  /// Gathers the names from the inodes, which have them too: the checkpoint writes a new tree of names.
  private func rebuildNames() throws(ExtentFSError) {
    names = [:]
    rebuildsNames = true
    var unnamed = inodes
    try catalog.forEach { inode, record throws(ExtentFSError) in
      let current = unnamed.removeValue(forKey: inode) ?? record
      if let current, current.hasName { try enter(current.name, for: inode) }
      return true
    }
    for (inode, record) in unnamed.sorted(by: { $0.key < $1.key }) {
      if let record, record.hasName { try enter(record.name, for: inode) }
    }
  }

  /// The inode of `name`, with its record, as it will be, and the key that it is under; else the key for it.
  func find(_ name: String) throws(ExtentFSError) -> (key: UInt64, found: (inode: UInt64, record: InodeRecord)?) {
    var key = catalog.nameKey(name)
    while let inode = try inode(atKey: key) {
      guard let record = try record(of: inode) else { throw Catalog.missing(inode) }
      if record.name.hasSameBytes(as: name) { return (key, (inode, record)) }
      key &+= 1
    }
    return (key, nil)
  }

  /// Gives `inode`, whose record has it already, the name `name`, which is free.
  func enter(_ name: String, for inode: UInt64) throws(ExtentFSError) {
    // Not `find`: the record that has the name is the inode's own.
    var key = catalog.nameKey(name)
    while let other = try self.inode(atKey: key) {
      // It is there already where the names were gathered just now.
      if other == inode { return }
      key &+= 1
    }
    names[key] = .some(inode)
  }

  /// Takes the name of `record` away. Others that stand behind it because of it move up, so that each is found from its hash.
  func remove(nameOf record: InodeRecord) throws(ExtentFSError) {
    let named = try find(record.name)
    guard named.found != nil else { return }
    var hole = named.key
    names[hole] = .some(nil)
    var key = hole &+ 1
    while let inode = try inode(atKey: key) {
      guard let other = try self.record(of: inode) else { throw Catalog.missing(inode) }
      // It may move to the hole unless its hash lies behind that, counted round.
      if key &- catalog.nameKey(other.name) >= key &- hole {
        names[hole] = .some(inode)
        names[key] = .some(nil)
        hole = key
      }
      key &+= 1
    }
  }

  /// Takes back that `inodes` were entered.
  func withdraw(_ inodes: [UInt64]) throws(ExtentFSError) {
    for inode in inodes {
      guard let record = try record(of: inode) else { continue }
      try remove(nameOf: record)
      try setRecord(nil, of: inode)
    }
  }

  // MARK: What the checkpoint writes

  /// The changes of the tree of inodes.
  var inodeEdits: [KeyedEdit] {
    inodes.sorted { $0.key < $1.key }.map { inode, record in
      KeyedEdit(key: inode, value: record.map { encoded(InodeRecord.encodedByteCount, $0.encode) })
    }
  }

  /// The changes of the tree of names; all of a new one, where that is written anew.
  var nameEdits: [KeyedEdit] {
    names.sorted { $0.key < $1.key }.map { key, inode in
      KeyedEdit(key: key, value: inode.map { inode in encoded(8) { bytes, offset in bytes.store(inode, at: offset) } })
    }
  }
}

extension UInt64 {
  /// The sum, 0 where it would be negative, and the greatest number where it would be above that.
  func saturatingAdd(_ change: Int64) -> UInt64 {
    if change < 0 { return saturatingSubtract(change.magnitude) }
    let (sum, overflow) = addingReportingOverflow(change.magnitude)
    return overflow ? .max : sum
  }
}
