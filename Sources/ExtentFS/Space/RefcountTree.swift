internal import Extents

/// The tree of shared runs of one superblock: which blocks have more than one reference. A block that is in use and in no
/// shared run has one.
///
/// It never changes; any number of threads may use it. All functions throw `.damaged` where entries overlap, and what reading throws.
struct RefcountTree {
  private let table: TreeReader

  /// The tree at `root`.
  init(_ nodes: NodeCache, root: TreeRoot) { table = TreeReader(cache: nodes, root: root, kind: .shared) }

  var isEmpty: Bool { table.root.isEmpty }

  /// How many references `block` has.
  func count(of block: UInt64) throws(ExtentFSError) -> UInt64 {
    guard let entry = try table.floor(block) else { return 1 }
    let run = try RefcountRun(entry)
    return run.blocks.contains(block) ? run.count : 1
  }

  /// How many references `block` has; nil where the tree cannot be read there.
  func countIfReadable(of block: UInt64) throws(ExtentFSError) -> UInt64? {
    do throws(ExtentFSError) {
      return try count(of: block)
    } catch {
      guard error.isUnreadable else { throw error }
      return nil
    }
  }

  /// The part of the tree that `block` belongs to, and its blocks.
  func part(at block: UInt64) throws(ExtentFSError) -> RefcountPart {
    let (part, keys) = try table.part(for: block)
    return RefcountPart(part: part, blocks: keys)
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
    from block: UInt64, _ body: (RefcountRun) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var end: UInt64 = 0
    try table.forEach(fromFloorOf: block) { entry throws(ExtentFSError) in
      let run = try RefcountRun(entry)
      guard run.blocks.lowerBound >= end else {
        throw ExtentFSError(.damaged, "shared runs overlap at block \(run.blocks.lowerBound)")
      }
      end = run.blocks.upperBound
      return try body(run)
    }
  }
}

/// Blocks that have equally many references, two at least.
struct RefcountRun: Equatable {
  var blocks: Range<UInt64>
  var count: UInt64

  init(_ blocks: Range<UInt64>, _ count: UInt64) {
    self.blocks = blocks
    self.count = count
  }

  fileprivate init(_ entry: TreeReader.Entry) throws(ExtentFSError) {
    let record = try entry.withValue { value throws(ExtentFSError) in try SharedRecord(decoding: value, at: 0) }
    guard entry.key < ExtentRecord.blockLimit else {
      throw ExtentFSError(.damaged, "a shared run begins at block \(entry.key)")
    }
    self.init(entry.key..<entry.key + record.length, record.count)
  }
}

/// A leaf of the tree of shared runs, or what stands for one. No run of it reaches into another one.
struct RefcountPart {
  fileprivate var part: TreeReader.Part
  /// The blocks whose runs begin in it.
  var blocks: Range<UInt64>

  /// No run at all.
  static var none: Self { Self(part: .none, blocks: 0..<0) }

  /// Why it cannot be read; nil where it can.
  var damage: ExtentFSError? { if case .unreadable(let error) = part { error } else { nil } }

  private var leaf: Node? { if case .leaf(let node) = part { node } else { nil } }

  /// The last run that begins at `block` or before it; nil where there is none here.
  func floor(_ block: UInt64) throws(ExtentFSError) -> RefcountRun? {
    guard let leaf, let index = leaf.index(atOrBefore: block) else { return nil }
    return try RefcountRun(TreeReader.Entry(leaf: leaf, index: index))
  }

  /// The first run that begins behind `block`; nil where there is none here.
  func first(behind block: UInt64) throws(ExtentFSError) -> RefcountRun? {
    guard let leaf else { return nil }
    let index = leaf.index(atOrBefore: block).map { $0 + 1 } ?? 0
    return index < leaf.count ? try RefcountRun(TreeReader.Entry(leaf: leaf, index: index)) : nil
  }
}
