internal import Bytes

/// How many entries the nodes of one level of a tree have room for, and how long these are.
struct NodeLayout: Sendable, Hashable {
  /// The length of an entry, key and value, in bytes; a multiple of 8.
  let entryByteCount: Int
  /// How many entries fit into a node; at least 1.
  let capacity: Int

  init(_ kind: NodeKind, level: Int, blockByteCount: Int) {
    entryByteCount = 8 + (level == 0 ? kind.valueByteCount : BlockPointer.encodedByteCount)
    capacity = (blockByteCount - NodeHeader.encodedByteCount) / entryByteCount
  }

  /// Nodes with fewer entries are joined with a sibling.
  var minimum: Int { max(1, capacity / 3) }
}
