extension RunMap {
  /// Makes `range` carry `value` (and `value` advanced along it), or a gap where `value` is nil.
  ///
  /// What the range held before is cut away; the new run joins its neighbours where they continue it. O(log n),
  /// however many runs the range held; whole subtrees are dropped unread.
  public mutating func replace(_ range: Range<UInt64>, with value: Value?) {
    guard !range.isEmpty else { return }
    let run = value.map { joined(Run(range, $0)) }
    let sibling = root.replace(run?.positions ?? range, with: run, capacity)
    if let sibling {
      root = .inner([Child(start: 0, node: root), sibling])
    }
    root.collapse()
  }

  /// `run`, lengthened by the neighbours that it continues or that continue it.
  private func joined(_ run: Run<Value>) -> Run<Value> {
    var joined = run
    let (start, end) = (run.positions.lowerBound, run.positions.upperBound)
    func join(_ other: Run<Value>) {
      if other.positions.lowerBound < start, other.value(at: start) == run.value {
        joined = Run(other.positions.lowerBound..<joined.positions.upperBound, other.value)
      }
      if other.positions.upperBound > end, other.value(at: end) == run.value(at: end) {
        joined.positions = joined.positions.lowerBound..<other.positions.upperBound
      }
    }
    // One walk finds both neighbours of a short run; that of a long one may have much between them.
    var runsLeft = 4
    var last: Run<Value>?
    root.visit(start - min(start, 1)..<end + (end == .max ? 0 : 1)) { other in
      join(other)
      last = other
      runsLeft -= 1
      return runsLeft > 0
    }
    if runsLeft == 0, let last, last.positions.upperBound <= end, let right = self.run(at: end) { join(right) }
    return joined
  }
}

extension RunMap.Node {
  typealias Runs = RunMap.Runs
  typealias Children = RunMap.Children
  typealias Child = RunMap.Child

  private var count: Int {
    switch self {
    case .leaf(let runs): runs.count
    case .inner(let children): children.count
    }
  }

  /// Replaces `range` below this node by `run`, whose positions are `range`, or by a gap.
  ///
  /// Returns the node's upper half where the change made it too large. The node may be left without entries.
  fileprivate mutating func replace(_ range: Range<UInt64>, with run: Run<Value>?, _ capacity: NodeCapacity) -> Child? {
    // The payload is moved out, so that it is the only reference and changes in place where no copy shares it.
    switch self {
    case .leaf(var runs):
      self = .leaf([])
      runs.replace(range, with: run, capacity.runs)
      let upper = runs.splitOff(above: capacity.runs)
      self = .leaf(runs)
      return upper.map { Child(start: $0[0].positions.lowerBound, node: .leaf($0)) }
    case .inner(var children):
      self = .inner([])
      children.replace(range, with: run, capacity)
      let upper = children.splitOff(above: capacity.children)
      self = .inner(children)
      return upper.map { Child(start: $0[0].start, node: .inner($0)) }
    }
  }

  /// Takes away roots with a single child, or with none.
  fileprivate mutating func collapse() {
    while case .inner(let children) = self, children.count <= 1 {
      self = children.first?.node ?? .leaf([])
    }
  }

  /// This node and its right neighbour in one, where they fit.
  fileprivate func joined(with right: Self, _ capacity: NodeCapacity) -> Self? {
    guard count + right.count <= limit(capacity) else { return nil }
    return switch (self, right) {
    case (.leaf(let left), .leaf(let right)): .leaf(left + right)
    case (.inner(let left), .inner(let right)): .inner(left + right)
    case (.leaf, .inner), (.inner, .leaf): nil
    }
  }

  fileprivate var isEmpty: Bool { count == 0 }

  fileprivate func isSmall(_ capacity: NodeCapacity) -> Bool { count < limit(capacity) / 4 + 1 }

  private func limit(_ capacity: NodeCapacity) -> Int {
    switch self {
    case .leaf: capacity.runs
    case .inner: capacity.children
    }
  }
}

extension ContiguousArray {
  /// Cuts `range` out of the runs and puts `run` there. There are at most `limit` runs.
  fileprivate mutating func replace<Value>(
    _ range: Range<UInt64>, with run: Run<Value>?, _ limit: Int
  ) where Element == Run<Value> {
    let first = firstIndex(endingAfter: range.lowerBound)
    var end = first
    while end < count, self[end].positions.lowerBound < range.upperBound { end += 1 }

    var left: Run<Value>?
    var right: Run<Value>?
    if first < end {
      let (head, tail) = (self[first], self[end - 1])
      if head.positions.lowerBound < range.lowerBound {
        left = Run(head.positions.lowerBound..<range.lowerBound, head.value)
      }
      if tail.positions.upperBound > range.upperBound {
        right = Run(range.upperBound..<tail.positions.upperBound, tail.value(at: range.upperBound))
      }
    }
    // A leaf that another map shares is copied here, once, with room for what comes.
    reserveCapacity(limit + 2)
    var index = first
    func put(_ run: Run<Value>?) {
      guard let run else { return }
      if index < end { self[index] = run } else { insert(run, at: index) }
      index += 1
    }
    put(left)
    put(run)
    put(right)
    if index < end { removeSubrange(index..<end) }
  }

  /// Replaces `range` below the children it reaches, and mends those.
  fileprivate mutating func replace<Value>(
    _ range: Range<UInt64>, with run: Run<Value>?, _ capacity: NodeCapacity
  ) where Element == RunMap<Value>.Child {
    let first = index(holding: range.lowerBound)
    let last = Swift.max(first, partitionIndex { $0.start >= range.upperBound } - 1)

    // The last child first: its indices stay good. The ones between go unread. Entries go from its start only, so that
    // it never grows, and what is left begins behind the range.
    if last > first {
      _ = self[last].node.replace(range, with: nil, capacity)
      self[last].start = range.upperBound
    }
    if run != nil {
      self[first].start = Swift.min(self[first].start, range.lowerBound)
    } else if self[first].start >= range.lowerBound {
      self[first].start = Swift.max(self[first].start, range.upperBound)
    }
    let sibling = self[first].node.replace(range, with: run, capacity)
    if last > first + 1 { removeSubrange(first + 1..<last) }
    if let sibling { insert(sibling, at: first + 1) }

    for index in stride(from: Swift.min(first + 2, count - 1), through: Swift.max(first - 1, 0), by: -1) {
      mend(index, capacity)
    }
  }

  /// Removes the child at `index` where it is empty, and joins it with a neighbour where it is small and they fit.
  private mutating func mend<Value>(_ index: Int, _ capacity: NodeCapacity) where Element == RunMap<Value>.Child {
    guard index < count else { return }
    if self[index].node.isEmpty {
      remove(at: index)
    } else if index + 1 < count,
      self[index].node.isSmall(capacity) || self[index + 1].node.isSmall(capacity),
      let joined = self[index].node.joined(with: self[index + 1].node, capacity)
    {
      self[index].node = joined
      remove(at: index + 1)
    }
  }

  /// Takes the upper half away where there are more than `maximum` elements.
  fileprivate mutating func splitOff(above maximum: Int) -> ContiguousArray? {
    guard count > maximum else { return nil }
    let upper = ContiguousArray(self[(count / 2)...])
    removeSubrange((count / 2)...)
    return upper
  }
}

extension RunMap {
  /// The first broken invariant, in words; nil where all hold. O(n), for tests.
  public func checkInvariants() -> String? {
    var previous: Run<Value>?
    var leafDepth: Int?

    func check(_ node: Node, depth: Int, above key: UInt64, below limit: UInt64, isRoot: Bool) -> String? {
      switch node {
      case .leaf(let runs):
        if runs.isEmpty, !isRoot { return "an empty leaf" }
        if runs.count > capacity.runs { return "a leaf of \(runs.count) runs" }
        if leafDepth ?? depth != depth { return "leaves at depths \(leafDepth ?? 0) and \(depth)" }
        leafDepth = depth
        for run in runs {
          let (start, end) = (run.positions.lowerBound, run.positions.upperBound)
          if start == end { return "an empty run at \(start)" }
          if start < key || start >= limit { return "a run at \(start) under keys \(key)..<\(limit)" }
          if let before = previous {
            if before.positions.upperBound > start { return "runs \(before.positions) and \(run.positions) overlap" }
            if before.positions.upperBound == start, before.value(at: start) == run.value {
              return "runs \(before.positions) and \(run.positions) are one"
            }
          }
          previous = run
        }
      case .inner(let children):
        if children.isEmpty || isRoot && children.count == 1 { return "an inner node of \(children.count) children" }
        if children.count > capacity.children { return "an inner node of \(children.count) children" }
        for (index, child) in children.enumerated() {
          let next = index + 1 < children.count ? children[index + 1].start : limit
          if child.start < key && !(isRoot && index == 0) || child.start >= next {
            return "keys \(child.start), \(next)"
          }
          if let end = previous?.positions.upperBound, end > child.start {
            return "a run up to \(end) before the key \(child.start)"
          }
          if let broken = check(child.node, depth: depth + 1, above: child.start, below: next, isRoot: false) {
            return broken
          }
        }
      }
      return nil
    }
    return check(root, depth: 0, above: 0, below: .max, isRoot: true)
  }
}
