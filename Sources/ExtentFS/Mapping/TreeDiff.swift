internal import Extents

/// What differs between two mappings that share most of their trees.
///
/// Two cursors go from left to right. Where both are at subtrees with one pointer, these are equal, and are skipped unread. So
/// only nodes are read that one mapping has and the other does not, or that lie over such: the cost follows what changed, not
/// what there is. What is at one cursor and ends before the other one's begins is looked into by itself. Where both overlap, the
/// one that is higher is read, so that the cursors come to be at subtrees of one level again. Two of one level that overlap
/// and are not the same have to be read both, in whichever order.
struct TreeDiff {
  private var old: ExtentCursor
  private var new: ExtentCursor
  /// What was found and may still grow.
  private var joiner = RunJoiner<RangeContent>()
  private let body: (Range<UInt64>, RangeContent) throws(ExtentFSError) -> Bool

  /// Calls `body` with maximal ranges of blocks in which `new` differs from `old`, in order and inside `blocks`, until it returns
  /// false.
  ///
  /// Blocks are equal where both have them at one physical block, or have zeroes of whichever kind.
  ///
  /// - Throws: `damaged` for what cannot be a tree, `device` for what cannot be read, and what `body` throws.
  static func forEachDifference(
    from old: ExtentBase, to new: ExtentBase, in blocks: Range<UInt64>, _ nodes: NodeCache,
    _ body: (Range<UInt64>, RangeContent) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    guard !blocks.isEmpty, old != new else { return }
    try withoutActuallyEscaping(body) { body throws(ExtentFSError) in
      var diff = TreeDiff(
        old: ExtentCursor(nodes, old, blocks), new: ExtentCursor(nodes, new, blocks), body: body)
      try diff.run()
    }
  }

  private mutating func run() throws(ExtentFSError) {
    while try step() {}
    try joiner.end(body)
  }

  /// Goes on by one item or node; false at the end, or where `body` has had enough.
  private mutating func step() throws(ExtentFSError) -> Bool {
    switch (old.item, new.item) {
    case (nil, nil):
      return false
    case (.subtree(let left, _, _, _)?, .subtree(let right, _, _, _)?) where left == right:
      old.skip()
      new.skip()
      return true
    case (let left?, let right?) where left.start < right.end && right.start < left.end:
      return try compare(left, right)
    case (let left?, let right):
      if right.map({ left.start < $0.start }) ?? true { return try takeOld(left) }
      return try takeNew(right)
    case (nil, let right):
      return try takeNew(right)
    }
  }

  /// What overlaps.
  private mutating func compare(
    _ left: ExtentCursor.Item, _ right: ExtentCursor.Item
  ) throws(ExtentFSError) -> Bool {
    guard case .extent(let a) = left, case .extent(let b) = right else {
      if left.level >= right.level { try old.descend() } else { try new.descend() }
      return true
    }
    if a.logical < b.logical { return try takeOld(left, upTo: b.logical) }
    if b.logical < a.logical { return try takeNew(right, upTo: a.logical) }
    let count = min(UInt64(a.length), UInt64(b.length))
    old.consume(count)
    new.consume(count)
    return try tell(a.logical..<a.logical + count, a.target, b.target)
  }

  /// What only the old mapping has.
  private mutating func takeOld(
    _ item: ExtentCursor.Item, upTo end: UInt64 = .max
  ) throws(ExtentFSError) -> Bool {
    guard case .extent(let extent) = item else {
      try old.descend()
      return true
    }
    let stop = min(end, extent.blocks.upperBound)
    old.consume(stop - extent.logical)
    return try tell(extent.logical..<stop, extent.target, nil)
  }

  /// What only the new mapping has.
  private mutating func takeNew(
    _ item: ExtentCursor.Item?, upTo end: UInt64 = .max
  ) throws(ExtentFSError) -> Bool {
    guard case .extent(let extent) = item else {
      try new.descend()
      return true
    }
    let stop = min(end, extent.blocks.upperBound)
    new.consume(stop - extent.logical)
    return try tell(extent.logical..<stop, nil, extent.target)
  }

  private mutating func tell(
    _ blocks: Range<UInt64>, _ old: BlockLocation?, _ new: BlockLocation?
  ) throws(ExtentFSError) -> Bool {
    let (before, after) = (old?.physicalBlock, new?.physicalBlock)
    guard before != after else { return true }
    return try joiner.append(blocks, after == nil ? .hole : .data, body)
  }
}
