internal import BlockStores

/// How much a drop may do, and what it has done.
package struct DropWork: Sendable {
  /// How many nodes may still be visited.
  package var nodesLeft: Int
  /// How many blocks of data and reserved blocks the trees have lost, without those of shared subtrees, which are not read.
  package var mappedCount: UInt64 = 0
  package var reservedCount: UInt64 = 0

  package init(nodesLeft: Int) { self.nodesLeft = nodesLeft }
}

extension TreeMerge {
  /// Gives up the extent tree at `root` from its first key on: the nodes and data that nothing else refers to, visiting no
  /// more than a few more nodes than `work` says. A shared subtree loses one reference, unread.
  ///
  /// - Returns: what is left of the tree, for the next call; empty where nothing is. Its nodes may be less full than those of
  ///   other trees.
  /// - Throws: `ExtentFSError`, as `mergeExtents` does.
  package func drop(_ root: TreeRoot, _ work: inout DropWork) throws(ExtentFSError) -> TreeRoot {
    guard !root.isEmpty else { return .empty }
    guard work.nodesLeft > 0 else { return root }
    let rest = try drop(root.pointer, level: root.height - 1, &work)
    return rest.map { TreeRoot(pointer: $0.pointer, height: root.height) } ?? .empty
  }

  /// Gives up the subtree at `pointer`; what is left of it. Recurses once a level.
  private func drop(
    _ pointer: BlockPointer, level: Int, _ work: inout DropWork
  ) throws(ExtentFSError) -> (key: UInt64, pointer: BlockPointer)? {
    work.nodesLeft -= 1
    if try writer.isShared(pointer.block) {
      try writer.released(pointer.block)
      return nil
    }
    let node = try cache.node(pointer, kind: .extents, level: level, owner: 0)
    try writer.released(pointer.block)
    var rest: TreeBuilder<Device, Writer>?
    for index in 0..<node.count {
      if level == 0 {
        let extent = node.extent(at: index)
        guard let block = extent.target.physicalBlock else {
          work.reservedCount += UInt64(extent.length)
          continue
        }
        work.mappedCount += UInt64(extent.length)
        try writer.replaced(PhysicalRun(block: block, count: UInt64(extent.length)))
      } else if work.nodesLeft > 0 {
        guard let child = try drop(node.child(at: index), level: level - 1, &work) else { continue }
        rest = TreeBuilder(cache: cache, writer: writer, kind: .extents, owner: node.owner)
        try rest?.append(child.key, child.pointer, toLevel: level)
      } else {
        rest = rest ?? TreeBuilder(cache: cache, writer: writer, kind: .extents, owner: node.owner)
        try rest?.append(node.key(at: index), node.child(at: index), toLevel: level)
      }
    }
    return try rest?.writeSingle(level: level)
  }
}
