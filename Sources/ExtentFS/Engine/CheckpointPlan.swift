internal import Extents

/// What one checkpoint does besides merging what changed.
struct CheckpointPlan {
  /// The changes of the catalog. Records of volumes get their new extents by the checkpoint.
  let catalog: CatalogEditor
  /// Open volumes that nobody may change until the checkpoint has ended.
  var held: [DiskVolume] = []
  /// Inodes that get the contents of another: what was written to them before goes.
  var replacesContents: Set<UInt64> = []
  /// What is to get the contents of others. Where those have changes that cannot be merged, nothing comes of it.
  var copies: [Copy] = []
  /// Runs when what changed is in the trees, and the records in `catalog` say so.
  var finish: (CheckpointWriter) throws(ExtentFSError) -> Void = { _ in }

  init(_ catalog: CatalogEditor) { self.catalog = catalog }
}

extension CheckpointWriter {
  /// What `base` leads to gets one more reference: another inode leads to it too.
  func retain(_ base: ExtentBase) throws(ExtentFSError) {
    if !base.root.isEmpty { return try references.retain(node: base.root.pointer.block) }
    for extent in base.inline {
      guard let block = extent.target.physicalBlock else { continue }
      references.retain(PhysicalRun(block: block, count: UInt64(extent.length)))
    }
  }
}
