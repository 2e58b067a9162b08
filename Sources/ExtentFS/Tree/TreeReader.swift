/// Looks things up in one tree, which never changes.
///
/// Look-ups are loops, as long as the tree is high, and allocate nothing where the nodes are in memory. Any number of
/// threads may read. All functions throw `ExtentFSError`: `damaged` for what cannot be a tree, `device` for what cannot be read.
package struct TreeReader: Sendable {
  /// Where nodes come from.
  package let cache: NodeCache
  /// The tree.
  package let root: TreeRoot
  /// What the tree holds.
  package let kind: NodeKind
  /// The inode of an extent tree, else 0.
  package let owner: UInt64

  /// Reads the tree at `root`.
  package init(cache: NodeCache, root: TreeRoot, kind: NodeKind, owner: UInt64 = 0) {
    self.cache = cache
    self.root = root
    self.kind = kind
    self.owner = owner
  }

  /// An entry of a leaf.
  package struct Entry: Sendable {
    /// The leaf.
    package let leaf: Node
    /// Which of its entries.
    package let index: Int

    /// The key.
    package var key: UInt64 { leaf.key(at: index) }
    /// The extent, in a tree of extents.
    package var extent: ExtentRecord { leaf.extent(at: index) }

    /// Calls `body` with the value, of `kind.valueByteCount` bytes.
    package func withValue<Result, Failure: Error>(
      _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
      try leaf.withValue(at: index, body)
    }
  }

  /// The leaf that has the greatest key not above `key`, or the first leaf, and the first key of the next leaf; nil
  /// where the tree is empty.
  func leaf(for key: UInt64) throws(ExtentFSError) -> (node: Node, upper: UInt64?)? {
    guard !root.isEmpty else { return nil }
    var node = try cache.root(root, kind: kind, owner: owner)
    var upper: UInt64?
    // Ends: each child's level is one less than its parent's, which reading it verified.
    while node.level > 0 {
      (node, upper) = try cache.child(of: node, at: node.index(atOrBefore: key) ?? 0, upper: upper)
    }
    return (node, upper)
  }

  /// What there is for a key: a part of the tree.
  enum Part {
    /// A leaf.
    case leaf(Node)
    /// A subtree that cannot be read.
    case unreadable(ExtentFSError)
    /// An empty tree.
    case none
  }

  /// The part that `key` belongs to, and its keys. It throws only what says nothing of the tree.
  func part(for key: UInt64) throws(ExtentFSError) -> (part: Part, keys: Range<UInt64>) {
    guard !root.isEmpty else { return (.none, 0..<UInt64.max) }
    var keys: Range<UInt64> = 0..<UInt64.max
    do throws(ExtentFSError) {
      var node = try cache.root(root, kind: kind, owner: owner)
      while node.level > 0 {
        guard let index = node.index(atOrBefore: key) else { return (.none, keys.lowerBound..<node.key(at: 0)) }
        let upper = index + 1 < node.count ? node.key(at: index + 1) : keys.upperBound
        keys = node.key(at: index)..<max(upper, node.key(at: index))
        node = try cache.child(of: node, at: index, upper: upper == .max ? nil : upper).node
      }
      return (.leaf(node), keys)
    } catch {
      guard error.isUnreadable else { throw error }
      return (.unreadable(error), keys)
    }
  }

  /// Calls `body` with all parts in order, and their keys, until it returns false.
  func forEachPart(
    _ body: (Part, Range<UInt64>) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var key: UInt64 = 0
    while true {
      let (part, keys) = try part(for: key)
      // Ends: each part begins where the one before ends.
      guard try body(part, keys), keys.upperBound < .max else { return }
      key = keys.upperBound
    }
  }

  /// The entry with the greatest key that is not above `key`; nil where there is none.
  package func floor(_ key: UInt64) throws(ExtentFSError) -> Entry? {
    guard let leaf = try leaf(for: key), let index = leaf.node.index(atOrBefore: key) else { return nil }
    return Entry(leaf: leaf.node, index: index)
  }

  /// The entry with exactly the key `key`; nil where there is none.
  package func find(_ key: UInt64) throws(ExtentFSError) -> Entry? {
    guard let entry = try floor(key), entry.key == key else { return nil }
    return entry
  }

  /// Calls `body` with each entry whose key is not below `key`, in order, until `body` returns false.
  package func forEach(
    from key: UInt64 = 0, _ body: (Entry) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    try forEach(fromFloorOf: key) { entry throws(ExtentFSError) in
      if entry.key < key { return true }
      return try body(entry)
    }
  }

  /// Calls `body` with the entry that `floor` finds, where there is one, and all behind it.
  func forEach(
    fromFloorOf key: UInt64, _ body: (Entry) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var next: UInt64? = key
    // Ends: the next leaf's first key is exactly `upper`, and its own upper key is above that.
    while let key = next, let (node, upper) = try leaf(for: key) {
      for index in (node.index(atOrBefore: key) ?? 0)..<node.count {
        guard try body(Entry(leaf: node, index: index)) else { return }
      }
      next = upper
    }
  }

  /// The extent that holds the logical block `block`, whole; nil where that is a hole. For trees of extents.
  package func extent(holding block: UInt64) throws(ExtentFSError) -> ExtentRecord? {
    guard let extent = try floor(block)?.extent, extent.blocks.contains(block) else { return nil }
    return extent
  }

  /// Calls `body` with each extent that overlaps `blocks`, in order and clipped to them, until `body` returns false. For
  /// trees of extents.
  package func forEachExtent(
    in blocks: Range<UInt64>, _ body: (ExtentRecord) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    guard !blocks.isEmpty else { return }
    try forEach(fromFloorOf: blocks.lowerBound) { entry throws(ExtentFSError) in
      let extent = entry.extent
      guard extent.logical < blocks.upperBound else { return false }
      guard let part = extent.clipped(to: blocks) else { return true }
      return try body(part)
    }
  }
}

extension ExtentRecord {
  /// The part of the extent inside `range`; nil where there is none.
  package func clipped(to range: Range<UInt64>) -> ExtentRecord? {
    let part = blocks.clamped(to: range)
    guard !part.isEmpty else { return nil }
    return ExtentRecord(
      logical: part.lowerBound, length: UInt32(part.upperBound - part.lowerBound),
      target: target.advanced(by: part.lowerBound - logical))
  }
}
