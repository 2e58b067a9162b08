internal import Bytes

/// What a checkpoint needs blocks for, in numbers.
struct ReserveDemand {
  var blockSize: BlockSize
  /// How many volumes are open.
  var volumeCount: UInt64
  /// Whether anything is shared, or is about to be.
  var isSharing: Bool
  /// How many ephemeral clones no checkpoint has written.
  var unwrittenCloneCount: UInt64
  /// How many groups of blocks the device has.
  var groupCount: UInt64

  /// How many free blocks are kept from data, so that checkpoints succeed on a full store.
  ///
  /// Let N be the nodes that there are (blocks in use that no volume maps), and E the changes since the trees were written.
  ///
  /// *What one checkpoint takes.* What it replaces is free only when it is durable, so all that it writes must be free
  /// before. A merge writes each old node anew at most once: N. A node that is full may become two, and one beside it too:
  /// again N at most, over any number of checkpoints, since a node that was split is half empty and takes many changes to be
  /// full again. A change adds two extents at most (it cuts one into three), hence a node for each `capacity` / 2 changes,
  /// and a little for the levels above: G. A volume that gets its first tree writes two nodes.
  ///
  /// *What the next one must find.* Writes of data take blocks down to the reserve, and then nodes, up to N + G of them, are
  /// added by the checkpoint; those must be written anew by the next, in which trims change whatever they like. Trims give
  /// back more blocks than they add extents, but only afterwards. So the growth counts three times: when it is written, and
  /// in both terms of what it takes to write it again.
  ///
  /// *E has no bound but the journal's length*, for which the reserve would be out of proportion. So it is for a number of
  /// changes, the budget; whoever finds that used up raises it, and the reserve, as long as there is room, and else runs a
  /// checkpoint (`MetadataReserve.extend`).
  ///
  /// *Where blocks are shared*, a node that is written anew stays as well, for the others who share it: a change writes one
  /// way down the tree, or two where it is long. And the tree of shared runs may grow, up to an entry for each extent there is,
  /// which a single trim may bring about: three nodes for each leaf, as full as nodes are at least.
  func blockCount(forEdits editCount: UInt64, nodeCount: UInt64) -> UInt64 {
    let perLeaf = capacity(.extents)
    var growth = 2 * editCount / perLeaf + editCount / (8 * perLeaf) + 2
    // Each ephemeral clone becomes an inode.
    if unwrittenCloneCount > 0 { growth += 3 * unwrittenCloneCount / capacity(.inodes) + 2 }
    if isSharing {
      growth += min(2 * Self.usualHeight * editCount, nodeCount * max(volumeCount, 1)) + 3 * nodeCount
    }
    // Groups that get their first record.
    let spaceNodes = groupCount / capacity(.space) + 1
    return 3 * (nodeCount + growth + spaceNodes) + 4 * volumeCount + Self.fixedBlockCount
  }

  private func capacity(_ kind: NodeKind) -> UInt64 {
    UInt64(NodeLayout(kind, level: 0, blockByteCount: blockSize.byteCount).capacity)
  }

  /// The height of the tree of a volume with millions of extents.
  private static var usualHeight: UInt64 { 4 }
  /// For the catalog's nodes, and changes by threads that had looked at the budget just before it was used up.
  private static var fixedBlockCount: UInt64 { 32 }
}
