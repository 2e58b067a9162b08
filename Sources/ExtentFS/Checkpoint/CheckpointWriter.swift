internal import Extents

/// Where one checkpoint's merges write their nodes, and what they give up.
///
/// One thread uses it. What it `released` may be used again when the checkpoint is durable and no view maps it.
final class CheckpointWriter: TreeWriter {
  let generation: UInt64
  /// Blocks of the old trees that the new ones do not reach, nodes and data.
  private(set) var released: [PhysicalRun] = []
  /// Blocks that were taken for nodes, and for data that had to be moved.
  private(set) var allocated: [PhysicalRun] = []
  /// What waits to be given up when the checkpoint is durable.
  var deletions: [Deletion] = []
  /// Whether something was put into the journal again, so that the checkpoint must not be tried twice: there is room for it once.
  var hasCarried = false
  /// By how much the number of nodes of all trees changed.
  private(set) var nodeCountChange: Int64 = 0
  /// How many references nodes of extents, and data, have.
  let references: ReferenceCounts
  /// What is not on the device yet: all of it must be, before the superblock is.
  let batch: MetadataBatch
  private let runner: CheckpointRunner
  /// Blocks that a plan has taken for the nodes of the space tree.
  private var planned: [UInt64] = []
  private var isMergingPlanned = false

  /// The writer of a checkpoint that begins with the trees of `superblock`.
  init(_ runner: CheckpointRunner, after superblock: Superblock) {
    self.runner = runner
    // None, 0, where it was the last that there is.
    generation = superblock.generation &+ 1
    batch = MetadataBatch(runner.nodes)
    let space = runner.space
    references = ReferenceCounts(runner.nodes, root: superblock.shared) { range, body throws(ExtentFSError) in
      try space.forEachUsed(in: range, body)
    }
  }

  func allocateBlock() throws(ExtentFSError) -> UInt64 {
    if isMergingPlanned {
      guard let block = planned.popLast() else {
        throw ExtentFSError.internalInconsistency("the space tree needs more nodes than were planned")
      }
      return block
    }
    let run = try allocate(upTo: 1)
    try runner.space.commit(run)
    nodeCountChange += 1
    return run.block
  }

  /// Takes up to `count` blocks together, which are given back where the checkpoint comes to nothing.
  func allocate(upTo count: UInt64) throws(ExtentFSError) -> PhysicalRun {
    let run = try runner.space.allocate(upTo: count, near: nil, purpose: .metadata)
    allocated.append(run)
    return run
  }

  func write(_ node: Node) throws(ExtentFSError) { try batch.add(node) }

  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { try references.isShared(block) }

  func retainChildren(of node: Node) throws(ExtentFSError) {
    for index in 0..<node.count {
      if node.level > 0 {
        try references.retain(node: node.child(at: index).block)
      } else {
        let extent = node.extent(at: index)
        guard let block = extent.target.physicalBlock else { continue }
        references.retain(PhysicalRun(block: block, count: UInt64(extent.length)))
      }
    }
  }

  func freeNode(_ block: UInt64) throws(ExtentFSError) {
    guard !isMergingPlanned, try references.release(node: block) else { return }
    try deferFreeNode(PhysicalRun(block: block, count: 1))
  }

  func freeData(_ run: PhysicalRun) throws(ExtentFSError) {
    if references.release(run) { try deferFree(run) }
  }

  /// Gives up the data that nothing leads to any more, and returns the changes of the tree of shared runs. After that only that
  /// tree and the space are written.
  func finishReferences() throws(ExtentFSError) -> [KeyedEdit] {
    let edits = try references.finish { run throws(ExtentFSError) in try deferFree(run) }
    if let error = references.damage {
      runner.damage.note("the refcount tree", error, "blocks whose references they counted are never free again")
    }
    return edits
  }

  private func deferFreeNode(_ run: PhysicalRun) throws(ExtentFSError) {
    nodeCountChange -= 1
    try deferFree(run)
  }

  private func deferFree(_ run: PhysicalRun) throws(ExtentFSError) {
    try runner.space.deferFree(run)
    released.append(run)
  }

  /// What `base` leads to gets one more reference: another inode leads to it too.
  func retain(_ base: ExtentBase) throws(ExtentFSError) {
    if !base.root.isEmpty { return try references.retain(node: base.root.pointer.block) }
    for extent in base.inline {
      guard let block = extent.target.physicalBlock else { continue }
      references.retain(PhysicalRun(block: block, count: UInt64(extent.length)))
    }
  }

  /// Gives `inode`, of which `record` is left, up: at once, or in steps in the background, where it has a tree.
  ///
  /// - Parameter name: what it is, in words.
  func detach(
    _ record: InodeRecord, _ inode: UInt64, _ name: String, _ catalog: CatalogEditor
  ) throws(ExtentFSError) {
    try catalog.detach(record, inode, self)
    guard let left = try catalog.record(of: inode) else { return }
    deletions.append(Deletion(inode: inode, name: name, mappedBlockCount: left.mappedBlocks))
  }

  /// Takes the blocks and gives up the nodes that a merge of records of `groups` into the space tree will need and replace.
  func plan(_ root: TreeRoot, _ groups: [UInt64]) throws(ExtentFSError) {
    let plan = SpacePlan(generation: generation)
    let edits = groups.map { KeyedEdit(key: $0, value: [UInt8](repeating: 0, count: NodeKind.space.valueByteCount)) }
    _ = try TreeMerge(cache: runner.nodes, writer: plan).mergeKeyed(root: root, kind: .space, edits: edits)
    // A plan for more groups needs no fewer nodes, and gives up no fewer.
    let known = Set(released.map(\.block))
    for block in plan.released where !known.contains(block) { try deferFreeNode(PhysicalRun(block: block, count: 1)) }
    while planned.count < plan.allocatedCount { planned.append(try allocateBlock()) }
  }

  /// Merges `records` into the space tree, with the nodes of the last plan.
  func mergePlanned(_ root: TreeRoot, _ records: [KeyedEdit]) throws(ExtentFSError) -> TreeRoot {
    isMergingPlanned = true
    defer { isMergingPlanned = false }
    let root = try TreeMerge(cache: runner.nodes, writer: self).mergeKeyed(root: root, kind: .space, edits: records)
    guard planned.isEmpty else {
      throw ExtentFSError.internalInconsistency("the space tree needs fewer nodes than were planned")
    }
    return root
  }
}

/// Counts what a merge would need and replace, without doing it.
private final class SpacePlan: TreeWriter {
  let generation: UInt64
  private(set) var allocatedCount = 0
  private(set) var released: [UInt64] = []

  init(generation: UInt64) { self.generation = generation }

  func allocateBlock() throws(ExtentFSError) -> UInt64 {
    allocatedCount += 1
    return UInt64(allocatedCount)
  }
  func write(_ node: Node) throws(ExtentFSError) {}
  func freeNode(_ block: UInt64) throws(ExtentFSError) { released.append(block) }
  func freeData(_ run: PhysicalRun) throws(ExtentFSError) {}
}
