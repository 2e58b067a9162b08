internal import BlockStores

/// How far a drop has come.
struct DropProgress {
  /// How many more nodes it may visit.
  var left: Int
  /// How many blocks of data were given up one by one; those of shared subtrees are not counted.
  var dataCount: UInt64 = 0
}

extension TreeMerge {
  /// Gives up the extent tree at `root` from its first key on: the nodes and data that nothing else refers to, visiting no
  /// more than a few more nodes than are left in `progress`. A shared subtree loses one reference, unread.
  ///
  /// - Returns: what is left of the tree, for the next call; empty where nothing is. Its nodes may be less full than those of
  ///   other trees.
  /// - Throws: `ExtentFSError`, as `mergeExtents` does.
  func drop(_ root: TreeRoot, _ progress: inout DropProgress) throws(ExtentFSError) -> TreeRoot {
    guard !root.isEmpty, progress.left > 0 else { return root }
    if try releaseShared(root.pointer, &progress) { return .empty }
    let rest = try drop(try cache.root(root, kind: .extents, owner: 0), upper: nil, &progress)
    return rest.map { TreeRoot(pointer: $0.pointer, height: root.height) } ?? .empty
  }

  /// Gives up the reference to the node at `pointer` where others have it too; else false.
  private func releaseShared(_ pointer: BlockPointer, _ progress: inout DropProgress) throws(ExtentFSError) -> Bool {
    guard try writer.isShared(pointer.block) else { return false }
    progress.left -= 1
    try writer.released(pointer.block)
    return true
  }

  /// Gives up the subtree at `node`, whose keys lie below `upper`; what is left of it. Recurses once a level.
  private func drop(
    _ node: Node, upper: UInt64?, _ progress: inout DropProgress
  ) throws(ExtentFSError) -> (key: UInt64, pointer: BlockPointer)? {
    progress.left -= 1
    try writer.released(node.pointer.block)
    var rest: TreeBuilder<Device, Writer>?
    for index in 0..<node.count {
      if node.level == 0 {
        let extent = node.extent(at: index)
        guard let block = extent.target.physicalBlock else { continue }
        progress.dataCount &+= UInt64(extent.length)
        try writer.replaced(PhysicalRun(block: block, count: UInt64(extent.length)))
        continue
      }
      var kept: (key: UInt64, pointer: BlockPointer)? = (node.key(at: index), node.child(at: index))
      if progress.left > 0 {
        if try releaseShared(node.child(at: index), &progress) { continue }
        let (child, upper) = try cache.child(of: node, at: index, upper: upper)
        kept = try drop(child, upper: upper, &progress)
      }
      guard let kept else { continue }
      if rest == nil { rest = TreeBuilder(cache: cache, writer: writer, kind: .extents, owner: node.owner) }
      try rest?.append(kept.key, kept.pointer, toLevel: node.level)
    }
    return try rest?.writeSingle(level: node.level)
  }
}
