internal import Bytes
internal import Devices

/// Changes of the catalog that one checkpoint makes.
struct CatalogChanges {
  /// Inodes with their new records.
  var inodes: [UInt64: InodeRecord] = [:]
  /// Keys of names with the inodes that they now stand for; nil to remove.
  var names: [UInt64: UInt64?] = [:]

  /// The changes of the tree of inodes.
  var inodeEdits: [KeyedEdit] {
    inodes.sorted { $0.key < $1.key }.map {
      KeyedEdit(key: $0.key, value: encoded(InodeRecord.encodedByteCount, $0.value.encode))
    }
  }

  /// The changes of the tree of names.
  var nameEdits: [KeyedEdit] {
    names.sorted { $0.key < $1.key }.map { key, inode in
      KeyedEdit(key: key, value: inode.map { inode in encoded(8) { bytes, offset in bytes.store(inode, at: offset) } })
    }
  }
}

/// The `byteCount` bytes that `encode` makes, as the value of a tree's entry.
func encoded(_ byteCount: Int, _ encode: (inout MutableRawSpan, Int) -> Void) -> [UInt8] {
  var bytes = [UInt8](repeating: 0, count: byteCount)
  var span = bytes.mutableSpan
  var raw = unsafe span.mutableBytes
  encode(&raw, 0)
  return bytes
}

/// Looks names and inodes up in the trees of a superblock.
struct Catalog<Device: BlockDevice> {
  let nodes: NodeCache<Device>
  let superblock: Superblock

  /// The record of `inode`; nil where there is none.
  func record(of inode: UInt64) throws(ExtentFSError) -> InodeRecord? {
    let reader = TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes)
    return try reader.find(inode)?.withValue { value throws(ExtentFSError) in
      try InodeRecord(decoding: value, at: 0)
    }
  }

  /// The inode of the volume `name`, with its record, or the key under which that name can be entered.
  ///
  /// Names are found by their hash; where two names have one hash, the later one is under the next key that is free.
  func find(_ name: String) throws(ExtentFSError) -> (key: UInt64, found: (inode: UInt64, record: InodeRecord)?) {
    let reader = TreeReader(cache: nodes, root: superblock.names, kind: .names)
    var key = NameHash.key(of: name)
    while let entry = try reader.find(key) {
      let inode = entry.withValue { $0.uint64(at: 0) }
      guard let record = try record(of: inode) else {
        throw ExtentFSError(.damaged, "the catalog names the inode \(inode), which is not there")
      }
      if record.name.hasSameBytes(as: name) { return (key, (inode, record)) }
      key &+= 1
    }
    return (key, nil)
  }

  /// Calls `body` with all inodes, in order, until it returns false.
  func forEach(_ body: (UInt64, InodeRecord) throws(ExtentFSError) -> Bool) throws(ExtentFSError) {
    let reader = TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes)
    try reader.forEach(from: 0) { entry throws(ExtentFSError) in
      try body(entry.key, entry.withValue { value throws(ExtentFSError) in try InodeRecord(decoding: value, at: 0) })
    }
  }
}
