internal import Bytes
internal import Extents

/// Builds a tree from left to right out of entries and of subtrees that stay.
///
/// Each level has entries that are in no node yet. A node is written when there are enough for it and the least that
/// the next one needs. Where a subtree stays, what is pending below its level must go into nodes first; where
/// that is too little for a node, it is joined with the node on its left, else with the one on its right, which then does not stay.
/// Where neither can be read, the node is less full than others.
///
/// A node on the left is one that stayed, never one written by this builder: what is written leaves enough for the next node, so
/// that too little is pending only where a subtree stayed just before. So each node is written once.
struct TreeBuilder<Writer: TreeWriter> {
  let cache: NodeCache
  let writer: Writer
  let kind: NodeKind
  let owner: UInt64
  private var levels: [PendingEntries] = []

  init(cache: NodeCache, writer: Writer, kind: NodeKind, owner: UInt64) {
    self.cache = cache
    self.writer = writer
    self.kind = kind
    self.owner = owner
  }

  private static func damaged(_ key: UInt64) -> ExtentFSError {
    ExtentFSError(.damaged, "the nodes of a tree overlap at the key \(key)")
  }

  /// The pending entries of `level`, which is 0 or has been reached from below.
  private mutating func pending(_ level: Int) throws(ExtentFSError) -> PendingEntries {
    guard level <= TreeRoot.maximumHeight else { throw ExtentFSError(.damaged, "a tree has too many levels") }
    while levels.count <= level {
      let layout = NodeLayout(kind, level: levels.count, blockByteCount: cache.blockSize.byteCount)
      levels.append(PendingEntries(layout))
    }
    return levels[level]
  }

  // MARK: Entries

  /// Adds an entry to a level: to leaves an entry of the tree, to others a node of the level below.
  mutating func append(_ key: UInt64, value: RawSpan, toLevel level: Int) throws(ExtentFSError) {
    let pending = try pending(level)
    guard pending.append(key, value: value) else { throw Self.damaged(key) }
    if pending.count >= pending.layout.capacity + pending.layout.minimum {
      try write(pending.layout.capacity, ofLevel: level)
    }
  }

  /// Adds an entry of a leaf of the old tree.
  mutating func appendEntry(at index: Int, of leaf: Node) throws(ExtentFSError) {
    if kind == .extents {
      let extent = leaf.extent(at: index)
      return try appendExtent(extent.blocks, extent.target)
    }
    try leaf.withValue(at: index) { value throws(ExtentFSError) in
      try append(leaf.key(at: index), value: value, toLevel: 0)
    }
  }

  /// Adds a run of mapped blocks, as one extent or as many as its length takes, joined with the last one where it can be.
  mutating func appendExtent(_ blocks: Range<UInt64>, _ target: BlockLocation) throws(ExtentFSError) {
    var start = blocks.lowerBound
    while start < blocks.upperBound {
      let extent = ExtentRecord(
        logical: start, length: UInt32(clamping: blocks.upperBound - start),
        target: target.advanced(by: start - blocks.lowerBound))
      if try !pending(0).lengthenLast(by: extent) { try append(extent) }
      start = extent.blocks.upperBound
    }
  }

  private mutating func append(_ extent: ExtentRecord) throws(ExtentFSError) {
    var bytes = InlineArray<24, UInt8>(repeating: 0)
    var elements = bytes.mutableSpan
    // Safe: every bit pattern is a byte.
    var span = unsafe elements.mutableBytes
    extent.encode(into: &span, at: 0)
    try append(extent.logical, value: unsafe bytes.span.bytes.extracting(8..<24), toLevel: 0)
  }

  mutating func append(_ key: UInt64, _ pointer: BlockPointer, toLevel level: Int) throws(ExtentFSError) {
    var bytes = InlineArray<24, UInt8>(repeating: 0)
    var elements = bytes.mutableSpan
    // Safe: every bit pattern is a byte.
    var span = unsafe elements.mutableBytes
    pointer.encode(into: &span, at: 0)
    try append(key, value: unsafe bytes.span.bytes, toLevel: level)
  }

  // MARK: Subtrees of the old tree

  /// Says that the tree gives `node` up.
  func free(_ node: Node) throws(ExtentFSError) {
    // Nothing else is ever shared.
    if kind == .extents, try writer.isShared(node.pointer.block) { try writer.retainChildren(of: node) }
    try writer.freeNode(node.pointer.block)
  }

  /// Adds the subtree whose root is at `level` and begins with `key`, unread where that can be.
  mutating func keep(_ key: UInt64, _ pointer: BlockPointer, level: Int) throws(ExtentFSError) {
    for lower in 0...level {
      let pending = try pending(lower)
      if pending.isEmpty { continue }
      if pending.isTooFew, try !takeLeft(intoLevel: lower), try open(key, pointer, level: level) { return }
      try flush(lower)
    }
    try append(key, pointer, toLevel: level + 1)
  }

  /// Gives up the node at `level`, and adds what is in it; false where it cannot be read.
  private mutating func open(_ key: UInt64, _ pointer: BlockPointer, level: Int) throws(ExtentFSError) -> Bool {
    guard let node = try take(key, pointer, level: level) else { return false }
    for index in 0..<node.count {
      if level == 0 {
        try appendEntry(at: index, of: node)
      } else {
        try keep(node.key(at: index), node.child(at: index), level: level - 1)
      }
    }
    return true
  }

  /// Reads the node at `level` that begins with `key`, and gives it up; nil where it cannot be read.
  private func take(_ key: UInt64, _ pointer: BlockPointer, level: Int) throws(ExtentFSError) -> Node? {
    let node: Node
    do throws(ExtentFSError) {
      node = try cache.node(pointer, kind: kind, level: level, owner: owner)
    } catch {
      guard error.isUnreadable else { throw error }
      return nil
    }
    guard node.key(at: 0) == key else { throw Self.damaged(key) }
    try free(node)
    return node
  }

  /// Puts the entries of the node on the left before those pending at `level`; false where there is none that can be read.
  private mutating func takeLeft(intoLevel level: Int) throws(ExtentFSError) -> Bool {
    guard var above = (level + 1..<max(levels.count, level + 1)).first(where: { !levels[$0].isEmpty }) else {
      return false
    }
    // The nearest node on the left that is not in a node itself; from there, down along its last children.
    while above > level {
      let pending = levels[above]
      let (key, pointer) = (pending.key(at: pending.count - 1), pending.pointer(at: pending.count - 1))
      guard let node = try take(key, pointer, level: above - 1) else { return false }
      pending.removeLast()
      above -= 1
      let border = levels[above].isEmpty ? nil : node.count
      guard levels[above].prepend(node) else { throw Self.damaged(key) }
      if let border, kind == .extents, above == 0 { levels[0].join(at: border) }
    }
    return true
  }

  // MARK: Writing nodes

  /// Writes all that is pending at `level` into one node or two.
  private mutating func flush(_ level: Int, isLast: Bool = false) throws(ExtentFSError) {
    let (count, layout) = (levels[level].count, levels[level].layout)
    if count > layout.capacity {
      // In the middle; but at the tree's end, where more is likely to follow, the left one stays as full as can be.
      try write(isLast ? min(layout.capacity, count - layout.minimum) : count / 2, ofLevel: level)
    }
    try write(levels[level].count, ofLevel: level)
  }

  /// Writes a node of the first `count` entries pending at `level`.
  private mutating func write(_ count: Int, ofLevel level: Int) throws(ExtentFSError) {
    guard level < TreeRoot.maximumHeight else { throw ExtentFSError(.damaged, "a tree has too many levels") }
    let block = try writer.allocateBlock()
    let pending = levels[level]
    // Safe: the bytes of the entries are copied inside the call.
    let node = unsafe pending.withFirst(count) { entries in
      unsafe Node.make(
        kind, level: level, owner: owner, block: block, generation: writer.generation,
        blockByteCount: cache.blockSize.byteCount, count: count, entries: entries)
    }
    pending.removeFirst(count)
    try writer.write(node)
    try append(node.key(at: 0), node.pointer, toLevel: level + 1)
  }

  /// Writes what is pending at `level`, which fits into one node, and says where that begins and is.
  mutating func writeSingle(level: Int) throws(ExtentFSError) -> (key: UInt64, pointer: BlockPointer) {
    try write(levels[level].count, ofLevel: level)
    let above = levels[level + 1]
    return (above.key(at: 0), above.pointer(at: 0))
  }

  /// Writes all that is pending, and gives the root.
  mutating func finish() throws(ExtentFSError) -> TreeRoot {
    var level = 0
    while let top = levels.lastIndex(where: { !$0.isEmpty }) {
      let pending = levels[level]
      if level == top, level > 0, pending.count == 1 {
        return TreeRoot(pointer: pending.pointer(at: 0), height: level)
      }
      if !pending.isEmpty {
        if pending.isTooFew { _ = try takeLeft(intoLevel: level) }
        try flush(level, isLast: true)
      }
      level += 1
    }
    return .empty
  }
}
