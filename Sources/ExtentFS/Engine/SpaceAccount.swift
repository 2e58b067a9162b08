internal import Extents

/// What space a volume or snapshot has, in blocks, as of the last checkpoint.
package struct SpaceAccount: Sendable, Hashable {
  /// Blocks of data that it maps.
  package var mappedCount: UInt64 = 0
  /// Blocks that it has as reserved zeroes.
  package var reservedCount: UInt64 = 0
  /// Blocks of data that nothing else leads to.
  package var exclusiveDataCount: UInt64 = 0
  /// Nodes that nothing else leads to.
  package var exclusiveNodeCount: UInt64 = 0

  /// What it shares with others.
  package var sharedDataCount: UInt64 { mappedCount.saturatingSubtract(exclusiveDataCount) }
  /// What comes back when it is deleted.
  package var exclusiveCount: UInt64 { exclusiveDataCount + exclusiveNodeCount }
}

extension Engine {
  /// What space the volume or snapshot `name` has as of the last checkpoint. Reads the nodes that it shares with nobody: as
  /// many as deleting it would.
  ///
  /// - Throws: `.noSuchVolume`, `.damaged`, `.device`.
  package func spaceAccount(of name: String) throws(ExtentFSError) -> SpaceAccount {
    let (catalog, epoch) = superblocks.catalog
    // Nobody writes over the nodes meanwhile.
    defer { withExtendedLifetime(epoch) {} }
    guard let record = try catalog.find(name)?.record else { throw VolumeName.missing(name) }
    return try spaceAccount(of: record, RefcountTree(nodes, root: catalog.superblock.shared))
  }

  /// The same of the inode `inode`, such as that of a throwaway.
  package func spaceAccount(of inode: UInt64) throws(ExtentFSError) -> SpaceAccount {
    let (catalog, epoch) = superblocks.catalog
    defer { withExtendedLifetime(epoch) {} }
    // What has no record yet has nothing.
    guard let record = try catalog.record(of: inode) else { return SpaceAccount() }
    return try spaceAccount(of: record, RefcountTree(nodes, root: catalog.superblock.shared))
  }

  private func spaceAccount(
    of record: InodeRecord, _ shared: RefcountTree
  ) throws(ExtentFSError) -> SpaceAccount {
    var account = SpaceAccount(mappedCount: record.mappedBlocks, reservedCount: record.reservedBlocks)
    func count(_ extent: ExtentRecord) throws(ExtentFSError) {
      guard let block = extent.target.physicalBlock else { return }
      try shared.forEachPiece(of: PhysicalRun(block: block, count: UInt64(extent.length))) { piece, count in
        if count == 1 { account.exclusiveDataCount += piece.length }
      }
    }
    func walk(_ node: Node, upper: UInt64?) throws(ExtentFSError) {
      account.exclusiveNodeCount += 1
      for index in 0..<node.count {
        if node.level == 0 {
          try count(node.extent(at: index))
        } else if try shared.count(of: node.child(at: index).block) == 1 {
          let (child, upper) = try nodes.child(of: node, at: index, upper: upper)
          try walk(child, upper: upper)
        }
      }
    }
    for extent in record.inlineExtents { try count(extent) }
    // All below a shared node is shared.
    if !record.extents.isEmpty, try shared.count(of: record.extents.pointer.block) == 1 {
      try walk(try nodes.root(record.extents, kind: .extents, owner: 0), upper: nil)
    }
    return account
  }
}
