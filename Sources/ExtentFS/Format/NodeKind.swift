/// What a tree holds: the kind of all its nodes.
package enum NodeKind: UInt8, Sendable, CaseIterable {
  /// Logical blocks to extents (``ExtentRecord``).
  case extents = 1
  /// Inode numbers to inodes (``InodeRecord``).
  case inodes = 2
  /// Hashes of names (``NameHash``) to inode numbers.
  case names = 3
  /// Group numbers to groups (``GroupRecord``).
  case space = 4
  /// Physical blocks to shared runs (``SharedRecord``).
  case shared = 5

  /// The size of a value in a leaf, in bytes, without the key.
  package var valueByteCount: Int {
    switch self {
    case .extents: ExtentRecord.valueByteCount
    case .inodes: InodeRecord.encodedByteCount
    case .names: 8
    case .space: GroupRecord.encodedByteCount
    case .shared: SharedRecord.encodedByteCount
    }
  }
}

/// The first bytes of a node, which say what it is and where it belongs.
///
/// ```
///  0  u32  magic 0x4E4C4143
///  4  u8   kind         see NodeKind
///  5  u8   level        0 in leaves
///  6  u16  count        entries, at least 1
///  8  u64  block        the node's own
/// 16  u64  generation   of the checkpoint that wrote it
/// 24  u64  owner        the inode that a node of extents was written for, else 0
/// 32   32  zero
/// 64       entries: a key (u64) and a value, or in inner nodes a BlockPointer
/// ```
///
/// Keys rise strictly. The key of a child is exactly the first key in it.
package struct NodeHeader: Sendable, Hashable {
  /// The kind of the tree.
  package var kind: NodeKind
  /// The level: 0 in leaves.
  package var level: Int
  /// The number of entries.
  package var count: Int
  /// The node's own block.
  package var block: UInt64
  /// The generation of the checkpoint that wrote the node.
  package var generation: UInt64
  /// In a tree of extents the inode that the node was written for; others may share it meanwhile. Else 0.
  package var owner: UInt64

  /// The size of an encoded header, in bytes: where entries begin.
  package static let encodedByteCount = 64
  /// "CALN" in the order of bytes on disk.
  package static let magic: UInt32 = 0x4E4C_4143

  /// Makes a header.
  package init(kind: NodeKind, level: Int, count: Int, block: UInt64, generation: UInt64, owner: UInt64) {
    self.kind = kind
    self.level = level
    self.count = count
    self.block = block
    self.generation = generation
    self.owner = owner
  }

  /// Decodes the header of the node in `bytes`; nil where its magic or its kind is unknown.
  package init?(decoding bytes: RawSpan) {
    guard bytes.uint32(at: 0) == Self.magic, let kind = NodeKind(rawValue: bytes.uint8(at: 4)) else { return nil }
    self.kind = kind
    level = Int(bytes.uint8(at: 5))
    count = Int(bytes.uint16(at: 6))
    block = bytes.uint64(at: 8)
    generation = bytes.uint64(at: 16)
    owner = bytes.uint64(at: 24)
  }

  /// Encodes the header at the start of `bytes`.
  package func encode(into bytes: inout MutableRawSpan) {
    bytes.store(Self.magic, at: 0)
    bytes.store(kind.rawValue, at: 4)
    bytes.store(UInt8(truncatingIfNeeded: level), at: 5)
    bytes.store(UInt16(truncatingIfNeeded: count), at: 6)
    bytes.store(block, at: 8)
    bytes.store(generation, at: 16)
    bytes.store(owner, at: 24)
    bytes.zero(32..<Self.encodedByteCount)
  }
}
