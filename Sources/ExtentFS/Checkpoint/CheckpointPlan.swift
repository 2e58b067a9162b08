internal import Extents

/// What one checkpoint does besides merging what changed.
struct CheckpointPlan {
  /// The changes of the catalog. Records of volumes get their new extents by the checkpoint.
  let catalog: CatalogEditor
  /// Open volumes that nobody may change until the checkpoint has ended.
  var held: [OpenVolume] = []
  /// Inodes that get the contents of another: what was written to them before goes.
  var replacesContents: Set<UInt64> = []
  /// What is to get the contents of others. Where those have changes that cannot be merged, nothing comes of it.
  var copies: [Copy] = []
  /// Runs when what changed is in the trees, and the records in `catalog` say so.
  var finish: (CheckpointWriter) throws(ExtentFSError) -> Void = { _ in }

  init(_ catalog: CatalogEditor) { self.catalog = catalog }
}

/// Which inode's blocks another one gets.
struct Copy {
  var from: UInt64
  var to: UInt64
}

extension CheckpointPlan {
  /// Gives each inode of `copies` what the other one has when all that changed is merged.
  mutating func share(_ copies: [Copy]) {
    self.copies = copies
    let catalog = self.catalog
    finish = { writer throws(ExtentFSError) in
      for copy in copies {
        guard let source = try catalog.record(of: copy.from), var record = try catalog.record(of: copy.to) else {
          throw Catalog.missing(copy.from)
        }
        try writer.retain(source.base)
        record.base = source.base
        (record.mappedBlocks, record.reservedBlocks) = (source.mappedBlocks, source.reservedBlocks)
        record.byteCount = source.byteCount
        try catalog.setRecord(record, of: copy.to)
      }
    }
  }
}
