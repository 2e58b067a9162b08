internal import Bytes

/// The `byteCount` bytes that `encode` makes, as the value of a tree's entry.
func encoded(_ byteCount: Int, _ encode: (inout MutableRawSpan, Int) -> Void) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: byteCount)
  var span = bytes.mutableSpan
  var raw = unsafe span.mutableBytes
  encode(&raw, 0)
  return bytes
}

/// An inode, and what the catalog says of it.
package typealias CatalogEntry = (inode: UInt64, record: InodeRecord)

/// Looks names and inodes up in the trees of a superblock.
struct Catalog {
  let nodes: NodeCache
  let superblock: Superblock
  /// The hash of names; another one is for tests.
  var nameKey: @Sendable (String) -> UInt64 = { NameHash.key(of: $0) }

  /// The record of `inode`; nil where there is none.
  func record(of inode: UInt64) throws(ExtentFSError) -> InodeRecord? {
    let reader = TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes)
    return try reader.find(inode)?.withValue { value throws(ExtentFSError) in
      try InodeRecord(decoding: value, at: 0)
    }
  }

  /// The inode under `key` in the tree of names; nil where there is none.
  func inode(atKey key: UInt64) throws(ExtentFSError) -> UInt64? {
    try TreeReader(cache: nodes, root: superblock.names, kind: .names).find(key)?.withValue { $0.uint64(at: 0) }
  }

  static func missing(_ inode: UInt64) -> ExtentFSError {
    ExtentFSError(.damaged, "the catalog names the inode \(inode), which does not exist")
  }

  /// The inode number and the record of the volume `name`; nil where there is no such volume.
  ///
  /// Names are found by their hash; where two names have one hash, the later one is under the next key that is free. Where that
  /// tree cannot be read, all inodes are looked through, which have their names too.
  func find(_ name: String) throws(ExtentFSError) -> CatalogEntry? {
    do throws(ExtentFSError) {
      return try findByKey(name)
    } catch {
      guard error.isUnreadable else { throw error }
      var found: CatalogEntry?
      var isWhole = true
      try forEachReadable({ _ in isWhole = false }) { inode, record in
        guard !record.isTransient, record.name.hasSameBytes(as: name) else { return true }
        found = (inode, record)
        return false
      }
      // It may be among those that cannot be read.
      if found == nil, !isWhole { throw error }
      return found
    }
  }

  private func findByKey(_ name: String) throws(ExtentFSError) -> CatalogEntry? {
    var key = nameKey(name)
    while let inode = try inode(atKey: key) {
      guard let record = try record(of: inode) else { throw Self.missing(inode) }
      if record.name.hasSameBytes(as: name) { return (inode, record) }
      key &+= 1
    }
    return nil
  }

  /// Calls `body` with all inodes that can be read, in order, until it returns false; and `unreadable` with the reason why others
  /// cannot.
  func forEachReadable(
    _ unreadable: (ExtentFSError) -> Void, _ body: (UInt64, InodeRecord) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    let reader = TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes)
    try reader.forEachPart { part, _ throws(ExtentFSError) in
      if case .unreadable(let error) = part { unreadable(error) }
      guard case .leaf(let leaf) = part else { return true }
      for index in 0..<leaf.count {
        let record: InodeRecord
        do throws(ExtentFSError) {
          record = try leaf.withValue(at: index) { value throws(ExtentFSError) in
            try InodeRecord(decoding: value, at: 0)
          }
        } catch {
          unreadable(error)
          continue
        }
        guard try body(leaf.key(at: index), record) else { return false }
      }
      return true
    }
  }

  /// Calls `body` with the reason for each part of the tree of names that cannot be read.
  func forEachUnreadableName(_ body: (ExtentFSError) -> Void) throws(ExtentFSError) {
    try TreeReader(cache: nodes, root: superblock.names, kind: .names).forEachPart { part, _ in
      if case .unreadable(let error) = part { body(error) }
      return true
    }
  }

  /// Calls `body` with all inodes, in order, until it returns false.
  func forEach(_ body: (UInt64, InodeRecord) throws(ExtentFSError) -> Bool) throws(ExtentFSError) {
    let reader = TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes)
    try reader.forEach(from: 0) { entry throws(ExtentFSError) in
      try body(entry.key, entry.withValue { value throws(ExtentFSError) in try InodeRecord(decoding: value, at: 0) })
    }
  }
}

extension Catalog {
  /// The snapshots that belong to `volume`, in the order of their inodes.
  func snapshots(of volume: CatalogEntry) throws(ExtentFSError) -> [CatalogEntry] {
    var found: [CatalogEntry] = []
    try forEach { inode, record in
      if record.isSnapshot(of: volume) { found.append((inode, record)) }
      return true
    }
    return found
  }

  /// What has these names, each once, and behind each its snapshots, where they are wanted.
  func find(_ names: [String], withSnapshots: Bool) throws(ExtentFSError) -> [CatalogEntry] {
    var all: [CatalogEntry] = []
    var seen: Set<UInt64> = []
    for name in names {
      guard let found = try find(name) else { throw VolumeName.missing(name) }
      let snapshots = withSnapshots && found.record.kind == .volume ? try snapshots(of: found) : []
      for entry in [found] + snapshots where seen.insert(entry.inode).inserted { all.append(entry) }
    }
    return all
  }
}
