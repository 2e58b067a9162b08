internal import Extents

/// Walks a mapping from left to right, and reads a node only where it is told to go into it.
struct ExtentCursor {
  /// What lies at the cursor.
  enum Item {
    /// A part of the tree, not read yet: all of its extents lie from `start` on and before `end`.
    case subtree(BlockPointer, level: Int, start: UInt64, end: UInt64)
    /// An extent, or what is left of it.
    case extent(ExtentRecord)

    var start: UInt64 {
      switch self {
      case .subtree(_, _, let start, _): start
      case .extent(let extent): extent.logical
      }
    }

    var end: UInt64 {
      switch self {
      case .subtree(_, _, _, let end): end
      case .extent(let extent): extent.blocks.upperBound
      }
    }

    /// The level of its root; -1 for an extent, which is below all nodes.
    var level: Int {
      switch self {
      case .subtree(_, let level, _, _): level
      case .extent: -1
      }
    }
  }

  /// What lies at the cursor; nil behind the last one.
  private(set) var item: Item?
  private let nodes: NodeCache
  private let root: TreeRoot
  private let blocks: Range<UInt64>
  private var inline: ArraySlice<ExtentRecord>
  private var path: [(node: Node, index: Int, upper: UInt64?)] = []

  /// At the first of what `base` has in `blocks`. Extents are clipped to these.
  init(_ nodes: NodeCache, _ base: ExtentBase, _ blocks: Range<UInt64>) {
    (self.nodes, root, self.blocks) = (nodes, base.root, blocks)
    inline = root.isEmpty ? base.inline[...] : []
    if root.isEmpty {
      takeInline()
    } else {
      item = .subtree(root.pointer, level: root.height - 1, start: 0, end: .max)
    }
  }

  /// Goes on behind the item, which stays unread where it is a subtree.
  mutating func skip() {
    if root.isEmpty { return takeInline() }
    guard !path.isEmpty else {
      item = nil
      return
    }
    path[path.count - 1].index += 1
    load()
  }

  /// Goes on behind the first `count` blocks of the extent at the cursor.
  mutating func consume(_ count: UInt64) {
    guard case .extent(let extent) = item else { return }
    if let rest = extent.clipped(to: extent.logical + count..<max(extent.logical + count, extent.blocks.upperBound)) {
      item = .extent(rest)
    } else {
      skip()
    }
  }

  /// Reads the subtree at the cursor, and goes to the first of what is in it.
  mutating func descend() throws(ExtentFSError) {
    let (node, upper): (Node, UInt64?)
    if let last = path.last {
      (node, upper) = try nodes.child(of: last.node, at: last.index, upper: last.upper)
    } else {
      (node, upper) = (try nodes.root(root, kind: .extents, owner: 0), nil)
    }
    path.append((node, node.index(atOrBefore: blocks.lowerBound) ?? 0, upper))
    load()
  }

  private mutating func takeInline() {
    item = nil
    while item == nil, let extent = inline.popFirst() { item = extent.clipped(to: blocks).map { .extent($0) } }
  }

  /// Puts what is at the path into `item`.
  private mutating func load() {
    item = nil
    while let (node, index, upper) = path.last {
      guard index < node.count, node.key(at: index) < blocks.upperBound else {
        // What is behind it in nodes above begins no earlier.
        path.removeLast()
        if !path.isEmpty { path[path.count - 1].index += 1 }
        continue
      }
      if node.level > 0 {
        let end = index + 1 < node.count ? node.key(at: index + 1) : upper ?? .max
        item = .subtree(node.child(at: index), level: node.level - 1, start: node.key(at: index), end: end)
      } else {
        item = node.extent(at: index).clipped(to: blocks).map { .extent($0) }
      }
      if item != nil { return }
      path[path.count - 1].index += 1
    }
  }
}
