internal import BlockStores
internal import Devices

/// The tree of shared runs of one superblock: which blocks have more than one reference. A block that is in use and in no
/// shared run has one.
///
/// It never changes; any number of threads may use it. All functions throw `.damaged` where entries overlap, and what reading throws.
struct SharedRuns<Device: BlockDevice> {
  private let table: TreeReader<Device>

  /// The tree at `root`.
  init(_ nodes: NodeCache<Device>, root: TreeRoot) { table = TreeReader(cache: nodes, root: root, kind: .shared) }

  var isEmpty: Bool { table.root.isEmpty }

  /// How many references `block` has.
  func count(of block: UInt64) throws(ExtentFSError) -> UInt64 {
    guard let entry = try table.floor(block) else { return 1 }
    let run = try SharedRun(entry)
    return run.blocks.contains(block) ? run.count : 1
  }

  /// Calls `body` with pieces that cover `run`, in order, and the count of each.
  func forEachPiece(
    of run: PhysicalRun, _ body: (Range<UInt64>, UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var next = run.block
    let end = run.block + run.count
    try forEach(from: run.block) { shared throws(ExtentFSError) in
      let part = shared.blocks.clamped(to: run.blocks)
      guard !part.isEmpty else { return shared.blocks.lowerBound < end }
      if next < part.lowerBound { try body(next..<part.lowerBound, 1) }
      try body(part, shared.count)
      next = part.upperBound
      return next < end
    }
    if next < end { try body(next..<end, 1) }
  }

  /// Calls `body` with the run that holds `block`, or the one before it, and all behind, until it returns false.
  fileprivate func forEach(
    from block: UInt64, _ body: (SharedRun) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var end: UInt64 = 0
    try table.forEach(fromFloorOf: block) { entry throws(ExtentFSError) in
      let run = try SharedRun(entry)
      guard run.blocks.lowerBound >= end else {
        throw ExtentFSError(.damaged, "shared runs overlap at block \(run.blocks.lowerBound)")
      }
      end = run.blocks.upperBound
      return try body(run)
    }
  }

  /// The way through the runs from left to right.
  func makeCursor() -> SharedRunCursor<Device> { SharedRunCursor(table: table) }
}

/// Blocks that have equally many references, two at least.
struct SharedRun: Equatable {
  var blocks: Range<UInt64>
  var count: UInt64

  init(_ blocks: Range<UInt64>, _ count: UInt64) {
    self.blocks = blocks
    self.count = count
  }

  fileprivate init<Device>(_ entry: TreeReader<Device>.Entry) throws(ExtentFSError) {
    let record = try entry.withValue { value throws(ExtentFSError) in try SharedRecord(decoding: value, at: 0) }
    guard entry.key < ExtentRecord.blockLimit else {
      throw ExtentFSError(.damaged, "a shared run begins at block \(entry.key)")
    }
    self.init(entry.key..<entry.key + record.length, record.count)
  }
}

/// Finds shared runs. It stays in one leaf as long as that holds what is looked for.
struct SharedRunCursor<Device: BlockDevice> {
  private let table: TreeReader<Device>
  private var leaf: (node: Node, upper: UInt64?)?

  fileprivate init(table: TreeReader<Device>) { self.table = table }

  /// The last run that begins at `block` or before it; nil where there is none.
  mutating func floor(_ block: UInt64) throws(ExtentFSError) -> SharedRun? {
    guard let leaf = try leaf(for: block), let index = leaf.node.index(atOrBefore: block) else { return nil }
    return try SharedRun(TreeReader<Device>.Entry(leaf: leaf.node, index: index))
  }

  /// The first run that begins behind `block`; nil where there is none.
  mutating func first(behind block: UInt64) throws(ExtentFSError) -> SharedRun? {
    guard var leaf = try leaf(for: block) else { return nil }
    var index = leaf.node.index(atOrBefore: block).map { $0 + 1 } ?? 0
    if index == leaf.node.count {
      guard let upper = leaf.upper, let next = try table.leaf(for: upper) else { return nil }
      (leaf, index) = (next, 0)
    }
    return try SharedRun(TreeReader<Device>.Entry(leaf: leaf.node, index: index))
  }

  private mutating func leaf(for block: UInt64) throws(ExtentFSError) -> (node: Node, upper: UInt64?)? {
    if let leaf, leaf.node.key(at: 0) <= block, block < leaf.upper ?? .max { return leaf }
    leaf = try table.leaf(for: block)
    return leaf
  }
}
