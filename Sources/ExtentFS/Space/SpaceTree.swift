internal import Bytes

/// The durable space tree, which has the records of groups.
///
/// Thread safety: any thread.
final class SpaceTree: Sendable {
  private let nodes: NodeCache
  private let root: Locked<TreeRoot>

  init(_ root: TreeRoot, _ nodes: NodeCache) {
    self.nodes = nodes
    self.root = Locked(rank: .spaceTree, root)
  }

  /// The superblock with the tree `root` is durable.
  func didCommit(_ root: TreeRoot) { self.root.withLock { $0 = root } }

  /// The record of `group`; nil where it has none.
  func record(of group: UInt64) throws(ExtentFSError) -> GroupRecord? {
    while true {
      let tree = root.withLock { $0 }
      do throws(ExtentFSError) {
        return try TreeReader(cache: nodes, root: tree, kind: .space).find(group)?.withValue {
          value throws(ExtentFSError) in
          try GroupRecord(decoding: value, at: 0)
        }
      } catch {
        // Nobody holds the tree's epoch: a checkpoint that ended meanwhile may have given its nodes to others.
        guard root.withLock({ $0 }) != tree else { throw error }
      }
    }
  }

  /// Calls `body` with all records, and `unreadable` with the groups whose records cannot be read.
  func forEachRecord(
    _ body: (UInt64, GroupRecord) -> Void, unreadable: (Range<UInt64>, ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    let tree = TreeReader(cache: nodes, root: root.withLock { $0 }, kind: .space)
    try tree.forEachPart { part, keys throws(ExtentFSError) in
      if case .unreadable(let error) = part { unreadable(keys, error) }
      guard case .leaf(let leaf) = part else { return true }
      for index in 0..<leaf.count {
        let group = leaf.key(at: index)
        do throws(ExtentFSError) {
          let record = try leaf.withValue(at: index) { value throws(ExtentFSError) in
            try GroupRecord(decoding: value, at: 0)
          }
          body(group, record)
        } catch {
          if group < .max { unreadable(group..<group + 1, error) }
        }
      }
      return true
    }
  }
}
