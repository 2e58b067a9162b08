internal import Extents

/// How much a drop may do, and what it has done.
struct DropWork {
  /// How many nodes may still be visited.
  var nodesLeft: Int
  /// How many blocks of data and reserved blocks the trees have lost, without those of shared subtrees, which are not read.
  var mappedCount: UInt64 = 0
  var reservedCount: UInt64 = 0

  init(nodesLeft: Int) { self.nodesLeft = nodesLeft }
}

extension TreeMerge {
  /// Gives up the extent tree at `root` from its first key on: the nodes and data that nothing else refers to, visiting no
  /// more than a few more nodes than `work` says. A shared subtree loses one reference, unread.
  ///
  /// - Returns: what is left of the tree, for the next call; empty where nothing is. Its nodes may be less full than those of
  ///   other trees.
  /// - Throws: `ExtentFSError`, as `mergeExtents` does.
  func drop(_ root: TreeRoot, _ work: inout DropWork) throws(ExtentFSError) -> TreeRoot {
    guard !root.isEmpty, work.nodesLeft > 0 else { return root }
    if try releaseShared(root.pointer, &work) { return .empty }
    let rest = try drop(try cache.root(root, kind: .extents, owner: 0), upper: nil, &work)
    return rest.map { TreeRoot(pointer: $0.pointer, height: root.height) } ?? .empty
  }

  /// Gives up all nodes of the tree of keys at `root` that can be found: what only a node leads to that cannot be read stays.
  func freeTree(_ root: TreeRoot, kind: NodeKind) throws(ExtentFSError) {
    guard !root.isEmpty else { return }
    try freeTree(root.pointer, kind: kind, level: root.height - 1)
  }

  private func freeTree(_ pointer: BlockPointer, kind: NodeKind, level: Int) throws(ExtentFSError) {
    try writer.freeNode(pointer.block)
    guard level > 0 else { return }
    let node: Node
    do throws(ExtentFSError) {
      node = try cache.node(pointer, kind: kind, level: level, owner: 0)
    } catch {
      guard error.isUnreadable else { throw error }
      return
    }
    for index in 0..<node.count { try freeTree(node.child(at: index), kind: kind, level: level - 1) }
  }

  /// Gives up the reference to the node at `pointer` where others have it too; else false.
  private func releaseShared(_ pointer: BlockPointer, _ work: inout DropWork) throws(ExtentFSError) -> Bool {
    guard try writer.isShared(pointer.block) else { return false }
    work.nodesLeft -= 1
    try writer.freeNode(pointer.block)
    return true
  }

  /// Gives up the subtree at `node`, whose keys lie below `upper`; what is left of it. Recurses once a level.
  private func drop(
    _ node: Node, upper: UInt64?, _ work: inout DropWork
  ) throws(ExtentFSError) -> (key: UInt64, pointer: BlockPointer)? {
    work.nodesLeft -= 1
    try writer.freeNode(node.pointer.block)
    var rest: TreeBuilder<Writer>?
    for index in 0..<node.count {
      if node.level == 0 {
        let extent = node.extent(at: index)
        guard let block = extent.target.physicalBlock else {
          work.reservedCount &+= UInt64(extent.length)
          continue
        }
        work.mappedCount &+= UInt64(extent.length)
        try writer.freeData(PhysicalRun(block: block, count: UInt64(extent.length)))
        continue
      }
      var kept: (key: UInt64, pointer: BlockPointer)? = (node.key(at: index), node.child(at: index))
      if work.nodesLeft > 0 {
        if try releaseShared(node.child(at: index), &work) { continue }
        let (child, upper) = try cache.child(of: node, at: index, upper: upper)
        kept = try drop(child, upper: upper, &work)
      }
      guard let kept else { continue }
      if rest == nil { rest = TreeBuilder(cache: cache, writer: writer, kind: .extents, owner: node.owner) }
      try rest?.append(kept.key, kept.pointer, toLevel: node.level)
    }
    return try rest?.writeSingle(level: node.level)
  }
}
