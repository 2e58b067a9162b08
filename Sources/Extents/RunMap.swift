/// What a run of a ``RunMap`` carries, and how it changes along the run.
public protocol RunValue: Sendable, Equatable {
  /// The value of the part of a run that begins `count` positions after the run's own start.
  ///
  /// A value that names a place moves on by `count`; one that describes every position alike returns itself. Two
  /// runs that touch are one run where the first one's value, advanced by its length, equals the second one's.
  func advanced(by count: UInt64) -> Self
}

/// One contiguous run of positions and what it carries.
public struct Run<Value: RunValue>: Sendable, Equatable {
  /// The positions; never empty.
  public var positions: Range<UInt64>
  /// The value at the first position.
  public var value: Value

  /// Makes a run.
  public init(_ positions: Range<UInt64>, _ value: Value) {
    self.positions = positions
    self.value = value
  }

  /// The value at `position`, which must lie in the run or at its end.
  func value(at position: UInt64) -> Value { value.advanced(by: position - positions.lowerBound) }

  /// The part of the run that lies in `range`, which must overlap it.
  func clamped(to range: Range<UInt64>) -> Run {
    let part = positions.clamped(to: range)
    return Run(part, value(at: part.lowerBound))
  }
}

/// How many entries the nodes of a ``RunMap`` hold at most.
public struct NodeCapacity: Sendable {
  let runs: Int
  let children: Int

  /// Large leaves, since runs are copied by the byte, and small inner nodes, since each child copied costs a reference: the best
  /// of those measured with 131,072 runs.
  public static let standard = NodeCapacity(runs: 128, children: 16)

  /// Leaves of `runs` and inner nodes of `children` entries, at least 4 of each; tests use few, so that small maps have
  /// many nodes.
  public init(runs: Int, children: Int) {
    precondition(runs >= 4 && children >= 4, "a node of a RunMap needs room for four entries")
    self.runs = runs
    self.children = children
  }
}

/// A persistent ordered map from positions to values, held as maximal runs; positions in no run are gaps.
///
/// It is a B+tree whose nodes are values that copies share: copying a map costs one reference, and changing a copy
/// rewrites only the nodes on the way to the change (path copying), in place where no other copy holds them. So one
/// structure serves as a file's extent list, which readers hold while writers publish new ones, and as a table that
/// one owner changes under a lock.
///
/// Invariants, checked by `checkInvariants()`:
/// 1. Runs are in order, not empty, and do not overlap.
/// 2. Runs that touch could not be one run (see ``RunValue``).
/// 3. All leaves are at one depth; a node other than the root has at least one entry, and none has more than
///    its `NodeCapacity` says.
/// 4. A child's key is at most the start of its first run, and at least the end of the last run in the child before it: so
///    the run that holds a position is below the last child whose key is not above the position.
///
/// Look-ups and changes cost O(log n), whatever the length of the range. Safe to read from many threads; a change
/// needs exclusive access to the variable, as with every Swift value.
public struct RunMap<Value: RunValue>: Sendable {
  typealias Runs = ContiguousArray<Run<Value>>
  typealias Children = ContiguousArray<Child>

  enum Node: Sendable {
    case leaf(Runs)
    case inner(Children)
  }

  struct Child: Sendable {
    var start: UInt64
    var node: Node

    init(start: UInt64, node: Node) {
      self.start = start
      self.node = node
    }
  }

  var root: Node
  let capacity: NodeCapacity

  /// An empty map with nodes of the given capacity.
  public init(capacity: NodeCapacity = .standard) {
    self.capacity = capacity
    root = .leaf([])
  }

  /// Whether the map has no run.
  public var isEmpty: Bool {
    if case .leaf(let runs) = root { return runs.isEmpty }
    return false
  }

  /// The run that holds `position`, nil where that is a gap. O(log n).
  public func run(at position: UInt64) -> Run<Value>? {
    guard position < .max else { return nil }
    var found: Run<Value>?
    root.visit(position..<position + 1) { run in
      found = run
      return false
    }
    return found
  }

  /// The first run that ends after `position`: the one that holds it, or the next one. O(log n).
  public func firstRun(endingAfter position: UInt64) -> Run<Value>? {
    var found: Run<Value>?
    root.visit(position..<UInt64.max) { run in
      found = run
      return false
    }
    return found
  }

  /// Calls `body` with each run that overlaps `range`, in order and clipped to it, until `body` returns false.
  /// O(log n + runs visited).
  public func forEachRun<Failure: Error>(
    in range: Range<UInt64>, _ body: (Run<Value>) throws(Failure) -> Bool
  ) throws(Failure) {
    guard !range.isEmpty else { return }
    _ = try root.visit(range) { run throws(Failure) in try body(run.clamped(to: range)) }
  }

  /// Calls `body` with consecutive pieces that cover all of `range`, in order: runs clipped to it, and the gaps
  /// between them with a nil value, until `body` returns false. O(log n + runs visited).
  public func forEachPiece<Failure: Error>(
    in range: Range<UInt64>, _ body: (_ positions: Range<UInt64>, _ value: Value?) throws(Failure) -> Bool
  ) throws(Failure) {
    var next = range.lowerBound
    var stopped = false
    try forEachRun(in: range) { run throws(Failure) in
      if run.positions.lowerBound > next, try !body(next..<run.positions.lowerBound, nil) {
        stopped = true
        return false
      }
      next = run.positions.upperBound
      stopped = try !body(run.positions, run.value)
      return !stopped
    }
    if !stopped, next < range.upperBound { _ = try body(next..<range.upperBound, nil) }
  }

  /// All runs, in order. O(n).
  public var runs: [Run<Value>] {
    var all: [Run<Value>] = []
    forEachRun(in: 0..<UInt64.max) { run in
      all.append(run)
      return true
    }
    return all
  }
}

extension RunMap.Node {
  /// Calls `body` with each run that overlaps the non-empty `range`, in order and whole; false once `body` was.
  @discardableResult
  func visit<Failure: Error>(
    _ range: Range<UInt64>, _ body: (Run<Value>) throws(Failure) -> Bool
  ) throws(Failure) -> Bool {
    switch self {
    case .leaf(let runs):
      var index = runs.firstIndex(endingAfter: range.lowerBound)
      while index < runs.count, runs[index].positions.lowerBound < range.upperBound {
        guard try body(runs[index]) else { return false }
        index += 1
      }
    case .inner(let children):
      var index = children.index(holding: range.lowerBound)
      while index < children.count, index == 0 || children[index].start < range.upperBound {
        guard try children[index].node.visit(range, body) else { return false }
        index += 1
      }
    }
    return true
  }
}

extension ContiguousArray {
  /// The first index for which `isBeyond` holds, where it holds for every later one too. O(log n).
  func partitionIndex(_ isBeyond: (Element) -> Bool) -> Int {
    var low = 0
    var high = count
    while low < high {
      let middle = (low + high) / 2
      if isBeyond(self[middle]) { high = middle } else { low = middle + 1 }
    }
    return low
  }

  /// The index of the first run that ends after `position`.
  func firstIndex<Value>(endingAfter position: UInt64) -> Int where Element == Run<Value> {
    partitionIndex { $0.positions.upperBound > position }
  }

  /// The index of the child that holds runs which start at `position`: the last one whose key is not above it.
  func index<Value>(holding position: UInt64) -> Int where Element == RunMap<Value>.Child {
    Swift.max(partitionIndex { $0.start > position } - 1, 0)
  }
}
