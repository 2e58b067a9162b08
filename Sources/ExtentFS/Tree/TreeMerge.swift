package import Extents

/// A change of an extent tree: what a range of logical blocks is mapped to from now on.
package struct ExtentEdit: Sendable, Hashable {
  /// The logical blocks, below `ExtentRecord.blockLimit`.
  package var blocks: Range<UInt64>
  /// Where the first of them is; nil for a hole.
  package var target: BlockLocation?

  /// Makes an edit.
  package init(_ blocks: Range<UInt64>, _ target: BlockLocation?) {
    self.blocks = blocks
    self.target = target
  }
}

/// A change of a tree of any kind but extents.
package struct KeyedEdit: Sendable, Hashable {
  /// The key.
  package var key: UInt64
  /// The key's value from now on, of the kind's `valueByteCount`; nil to delete the key.
  package var value: [UInt8]?

  /// Makes an edit.
  package init(key: UInt64, value: [UInt8]?) {
    self.key = key
    self.value = value
  }
}

/// What a merge of extents led to.
package struct ExtentMergeResult: Sendable, Equatable {
  /// The new tree.
  package var root: TreeRoot
  /// By how much the number of logical blocks with a physical block changed.
  package var mappedBlocks: Int64
  /// By how much the number of reserved blocks changed.
  package var reservedBlocks: Int64
  /// The edits, in order, that were left out, since the leaf that they belong to could not be read. The new tree has that subtree
  /// as the old one had it.
  package var leftOut: [ExtentEdit] = []
  /// Why the first of them was left out.
  package var damage: ExtentFSError?
}

/// What a merge of keys does where it would have to read a node that cannot be read.
package enum UnreadableNodes: Sendable {
  /// It throws.
  case fail
  /// It puts the edits in place of the subtrees that are for just these keys, read or unread: the edits say all that is known of
  /// them. It throws for others.
  case replace([Range<UInt64>])
}

/// Merges sorted changes into a tree in one pass, and gives the root of the new tree.
///
/// Nodes are never changed: each one that a change touches is read, given up and written anew, at most once, and so are
/// those above it. All others stay, unread. Invariants of the new tree:
/// 1. Each key of an inner node is exactly the first key of its child.
/// 2. Nodes hold at most what fits, and other than the root at least a third of it, provided that the old tree's did.
/// 3. An inner root has at least two children.
/// 4. No extent of a leaf continues the one before it in the same leaf, unless the two are too long for one.
///
/// Time is proportional to the nodes touched, memory to the height of the tree. Used by one thread at a time.
package struct TreeMerge<Writer: TreeWriter> {
  /// Where old nodes are read from, and new ones go.
  package let cache: NodeCache
  /// Who allocates, writes, and hears what is given up.
  package let writer: Writer

  /// Makes a merge for the trees of one checkpoint.
  package init(cache: NodeCache, writer: Writer) {
    self.cache = cache
    self.writer = writer
  }

  /// Merges `edits`, in order and without overlaps, into the extent tree of the inode `owner`.
  ///
  /// What an edit replaces is cut away, and its physical blocks are reported by `TreeWriter.replaced`. An edit to what is
  /// already there reports nothing. Holes where nothing is mapped touch no node. Edits of what lies below a node that cannot be
  /// read are left out, all others are merged.
  ///
  /// - Throws: `ExtentFSError`: what the writer threw, `damaged` or `device`. The old tree is then valid as before.
  package func mergeExtents(
    root: TreeRoot, owner: UInt64, edits: some Sequence<ExtentEdit>
  ) throws(ExtentFSError) -> ExtentMergeResult {
    var builder = TreeBuilder(cache: cache, writer: writer, kind: .extents, owner: owner)
    let reader = TreeReader(cache: cache, root: root, kind: .extents, owner: owner)
    var edits = try ExtentEdits(edits.makeIterator(), old: reader)
    let root = try merge(&edits, into: root, &builder)
    return ExtentMergeResult(
      root: root, mappedBlocks: edits.mappedBlocks, reservedBlocks: edits.reservedBlocks, leftOut: edits.leftOut,
      damage: edits.damage)
  }

  /// Merges `edits`, in order of their keys and one for each, into a tree of `kind`, which is not `extents`.
  ///
  /// - Throws: as `mergeExtents` does.
  package func mergeKeyed(
    root: TreeRoot, kind: NodeKind, edits: some Sequence<KeyedEdit>, unreadable: UnreadableNodes = .fail
  ) throws(ExtentFSError) -> TreeRoot {
    precondition(kind != .extents, "extents are not merged by their keys")
    var builder = TreeBuilder(cache: cache, writer: writer, kind: kind, owner: 0)
    var edits = KeyedEdits(edits.makeIterator(), valueByteCount: kind.valueByteCount, unreadable: unreadable)
    return try merge(&edits, into: root, &builder)
  }

  private func merge<Edits: TreeEdits>(
    _ edits: inout Edits, into root: TreeRoot, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) -> TreeRoot {
    guard edits.nextKey != nil else { return root }
    if root.isEmpty {
      try edits.apply(to: nil, below: nil, &builder)
    } else if edits.replaces(0..<UInt64.max) {
      try writer.freeNode(root.pointer.block)
      try edits.apply(to: nil, below: nil, &builder)
    } else {
      let node: Node
      do throws(ExtentFSError) {
        node = try cache.root(root, kind: builder.kind, owner: builder.owner)
      } catch {
        try edits.leaveOut(below: nil, since: error)
        return root
      }
      try merge(&edits, into: node, upper: nil, &builder)
    }
    return try builder.finish()
  }

  /// Merges the edits below `upper`, of which there is one at least, into the subtree at `node`. Recurses once a level.
  private func merge<Edits: TreeEdits>(
    _ edits: inout Edits, into node: Node, upper: UInt64?, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    try builder.free(node)
    guard node.level > 0 else { return try edits.apply(to: node, below: upper, &builder) }
    for index in 0..<node.count {
      let next = index + 1 < node.count ? node.key(at: index + 1) : upper
      if let key = edits.nextKey, key < next ?? .max || next == nil {
        if edits.replaces(node.key(at: index)..<max(next ?? .max, node.key(at: index))) {
          try writer.freeNode(node.child(at: index).block)
          try edits.apply(to: nil, below: next, &builder)
          continue
        }
        let child: (node: Node, upper: UInt64?)
        do throws(ExtentFSError) {
          child = try cache.child(of: node, at: index, upper: upper)
        } catch {
          try edits.leaveOut(below: next, since: error)
          try builder.keep(node.key(at: index), node.child(at: index), level: node.level - 1)
          continue
        }
        try merge(&edits, into: child.node, upper: child.upper, &builder)
      } else {
        try builder.keep(node.key(at: index), node.child(at: index), level: node.level - 1)
      }
    }
  }
}

/// Changes in order of their keys, and how they apply to a leaf.
protocol TreeEdits {
  /// The key at which the next change begins; nil where none is left.
  var nextKey: UInt64? { get }

  /// Gives the entries of `leaf`, as changed by the edits below `upper`, to `builder`, in order.
  mutating func apply<Writer>(
    to leaf: Node?, below upper: UInt64?, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError)

  /// Whether the edits take the place of the subtree that is for just these keys.
  func replaces(_ keys: Range<UInt64>) -> Bool

  /// Passes over the edits below `upper`, which belong to a subtree that cannot be read.
  ///
  /// - Throws: `error`, the reason why it cannot, where the edits cannot be passed over.
  mutating func leaveOut(below upper: UInt64?, since error: ExtentFSError) throws(ExtentFSError)
}
