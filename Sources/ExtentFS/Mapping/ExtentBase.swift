internal import Extents

/// What a merge of changes into a mapping led to.
struct MergedBase {
  var base: ExtentBase
  /// By how much the numbers of mapped and reserved blocks changed.
  var mapped: Int64
  var reserved: Int64
  /// What was left out, since the node that it belongs to cannot be read; and why.
  var leftOut = Overlay()
  var damage: ExtentFSError?
}

/// A volume's mapping as of a checkpoint: up to four extents in its inode record, or a tree of them.
struct ExtentBase: Sendable, Hashable {
  /// The extents, in order, where there is no tree.
  var inline: [ExtentRecord] = []
  /// The tree, where there is one.
  var root = TreeRoot.empty

  /// Calls `body` with pieces that cover `blocks`, in order, until it returns false; false then.
  func forEachPiece(
    in blocks: Range<UInt64>, _ nodes: NodeCache,
    _ body: (Range<UInt64>, BlockLocation) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) -> Bool {
    var next = blocks.lowerBound
    var shouldContinue = true
    func pass(_ extent: ExtentRecord) throws(ExtentFSError) -> Bool {
      if extent.logical > next { shouldContinue = try body(next..<extent.logical, .hole) }
      next = extent.blocks.upperBound
      if shouldContinue {
        shouldContinue = try body(extent.blocks, extent.target)
      }
      return shouldContinue
    }
    if root.isEmpty {
      for extent in inline {
        if shouldContinue, let part = extent.clipped(to: blocks) { _ = try pass(part) }
      }
    } else {
      try TreeReader(cache: nodes, root: root, kind: .extents).forEachExtent(in: blocks, pass)
    }
    if shouldContinue, next < blocks.upperBound { shouldContinue = try body(next..<blocks.upperBound, .hole) }
    return shouldContinue
  }

  /// This mapping with `overlay` merged into it, as far as its nodes can be read. What is no longer mapped is reported to `writer`.
  func merging(
    _ overlay: Overlay, owner: UInt64, _ nodes: NodeCache, _ writer: some TreeWriter
  ) throws(ExtentFSError) -> MergedBase {
    let edits = overlay.runs.map { ExtentEdit($0.positions, $0.value == .hole ? nil : $0.value) }
    let merge = TreeMerge(cache: nodes, writer: writer)
    if root.isEmpty, let merged = try merging(edits, writer) { return merged }
    // What was inline comes first: the edits then cut it as they cut a tree.
    let old = inline.map { ExtentEdit($0.blocks, $0.target) }
    let start = root.isEmpty ? try merge.mergeExtents(root: root, owner: owner, edits: old).root : root
    let result = try merge.mergeExtents(root: start, owner: owner, edits: edits)
    var merged = MergedBase(
      base: ExtentBase(inline: [], root: result.root), mapped: result.mappedBlocks, reserved: result.reservedBlocks)
    for edit in result.leftOut { merged.leftOut.replace(edit.blocks, with: edit.target ?? .hole) }
    merged.damage = result.damage
    return merged
  }

  /// The merge within the inode record; nil where the result has no room there.
  private func merging(
    _ edits: [ExtentEdit], _ writer: some TreeWriter
  ) throws(ExtentFSError) -> MergedBase? {
    guard edits.count <= 4 * ExtentRecord.inlineEditFactor else { return nil }
    var map = RunMap<BlockLocation>()
    for extent in inline { map.replace(extent.blocks, with: extent.target) }
    let before = map
    for edit in edits { map.replace(edit.blocks, with: edit.target) }
    let runs = map.runs
    guard runs.count <= InodeRecord.maximumInlineExtentCount,
      runs.allSatisfy({ $0.positions.upperBound - $0.positions.lowerBound <= UInt64(UInt32.max) })
    else { return nil }
    for edit in edits {
      try before.forEachRun(in: edit.blocks) { run throws(ExtentFSError) in
        guard let block = run.value.physicalBlock else { return true }
        let target = edit.target?.advanced(by: run.positions.lowerBound - edit.blocks.lowerBound)
        if target != run.value {
          try writer.freeData(PhysicalRun(block: block, count: run.positions.upperBound - run.positions.lowerBound))
        }
        return true
      }
    }
    let base = ExtentBase(
      inline: runs.map {
        ExtentRecord(
          logical: $0.positions.lowerBound, length: UInt32($0.positions.upperBound - $0.positions.lowerBound),
          target: $0.value)
      })
    let (mappedBefore, reservedBefore) = Self.count(before)
    let (mappedAfter, reservedAfter) = Self.count(map)
    return MergedBase(base: base, mapped: mappedAfter - mappedBefore, reserved: reservedAfter - reservedBefore)
  }

  private static func count(_ map: RunMap<BlockLocation>) -> (mapped: Int64, reserved: Int64) {
    var (mapped, reserved): (Int64, Int64) = (0, 0)
    for run in map.runs {
      let length = Int64(run.positions.upperBound - run.positions.lowerBound)
      if run.value.physicalBlock == nil { reserved += length } else { mapped += length }
    }
    return (mapped, reserved)
  }
}

extension ExtentRecord {
  /// How many edits per inline extent are tried before a tree is made.
  fileprivate static var inlineEditFactor: Int { 4 }
}
