internal import Bytes
public import Extents

/// A file's chain of block numbers, one for every place, and its size. Number 0 is a hole.
///
/// It is a persistent radix tree of 64-way nodes, as a processor's page table is: copies share nodes, a change rewrites
/// one node per level, parts of the file that are all holes have no node, and the tree is as deep as the highest place
/// that was ever in use needs. Look-up and change of one place are O(depth); the depth is at most 11.
public struct BlockChain: BlockMap {
  public var byteCount: UInt64
  private var root: Node?
  /// Levels of nodes; `root` covers 64^depth places.
  private var depth: UInt64 = 1

  private enum Node: Sendable {
    case blocks(ContiguousArray<UInt64>)
    case nodes(ContiguousArray<Node?>)
  }

  private static let bits: UInt64 = 6
  private static let fanOut = 1 << 6

  /// The chain of an empty file.
  public init() { byteCount = 0 }

  public static var holdsUnwritten: Bool { false }

  /// The block at `place`; 0 for a hole.
  public subscript(place: UInt64) -> UInt64 {
    target(of: place)?.physicalBlock ?? 0
  }

  public func forEachPiece<Failure: Error>(
    in places: Range<UInt64>, _ body: (_ blocks: Range<UInt64>, _ target: BlockLocation?) throws(Failure) -> Bool
  ) throws(Failure) {
    var pending = PendingPiece(at: places.lowerBound)
    guard try visit(root, at: 0, depth, places, &pending, body),
      try pending.add(nil, places.upperBound - pending.places.upperBound, body)
    else { return }
    _ = try pending.pass(to: body)
  }

  public mutating func replace(_ places: Range<UInt64>, with target: BlockLocation?) {
    guard !places.isEmpty else { return }
    if target != nil {
      while !covers(places.upperBound) {
        if let root {
          var nodes = ContiguousArray<Node?>(repeating: nil, count: Self.fanOut)
          nodes[0] = root
          self.root = .nodes(nodes)
        }
        depth += 1
      }
    }
    replace(places, with: target, in: &root, at: 0, depth)
  }

  private func covers(_ end: UInt64) -> Bool {
    depth * Self.bits >= 64 || end <= 1 << (depth * Self.bits)
  }

  /// The places below a node with `depth` levels whose first place is `base`.
  private static func places(from base: UInt64, _ depth: UInt64) -> Range<UInt64> {
    let (end, overflow) = base.addingReportingOverflow(depth * bits >= 64 ? .max : 1 << (depth * bits))
    return base..<(overflow ? .max : end)
  }

  /// The piece that is growing while a walk goes on.
  private struct PendingPiece {
    var places: Range<UInt64>
    var target: BlockLocation?

    init(at place: UInt64) { places = place..<place }

    /// Adds `count` places at `target`, or as a hole; passes the piece on first where they do not continue it.
    mutating func add<Failure: Error>(
      _ target: BlockLocation?, _ count: UInt64, _ body: (Range<UInt64>, BlockLocation?) throws(Failure) -> Bool
    ) throws(Failure) -> Bool {
      if target != self.target?.advanced(by: places.length) {
        guard try pass(to: body) else { return false }
        self = PendingPiece(at: places.upperBound)
        self.target = target
      }
      places = places.lowerBound..<places.upperBound + count
      return true
    }

    /// Passes the piece to `body`, where there is one.
    func pass<Failure: Error>(
      to body: (Range<UInt64>, BlockLocation?) throws(Failure) -> Bool
    ) throws(Failure) -> Bool {
      places.isEmpty ? true : try body(places, target)
    }
  }

  /// Adds the part of `places` below `node`, whose first place is `base`; false once `body` was.
  private func visit<Failure: Error>(
    _ node: Node?, at base: UInt64, _ depth: UInt64, _ places: Range<UInt64>, _ pending: inout PendingPiece,
    _ body: (Range<UInt64>, BlockLocation?) throws(Failure) -> Bool
  ) throws(Failure) -> Bool {
    let shift = (depth - 1) * Self.bits
    let part = places.clamped(to: Self.places(from: base, depth))
    guard !part.isEmpty else { return true }
    switch node {
    case nil:
      return try pending.add(nil, part.length, body)
    case .blocks(let blocks):
      for place in part {
        let block = blocks[Int(place - base)]
        guard try pending.add(block == 0 ? nil : .physical(block), 1, body) else { return false }
      }
    case .nodes(let nodes):
      for slot in (part.lowerBound - base) >> shift...(part.upperBound - 1 - base) >> shift {
        guard try visit(nodes[Int(slot)], at: base + slot << shift, depth - 1, places, &pending, body) else {
          return false
        }
      }
    }
    return true
  }

  private func replace(
    _ places: Range<UInt64>, with target: BlockLocation?, in node: inout Node?, at base: UInt64, _ depth: UInt64
  ) {
    let shift = (depth - 1) * Self.bits
    let all = Self.places(from: base, depth)
    let part = places.clamped(to: all)
    guard !part.isEmpty else { return }
    if target == nil, part == all || node == nil {
      node = nil
      return
    }
    let slots = (part.lowerBound - base) >> shift...(part.upperBound - 1 - base) >> shift
    // The payload is moved out, so that it changes in place where no copy of the chain shares it.
    if depth == 1 {
      var blocks = ContiguousArray<UInt64>(repeating: 0, count: node == nil ? Self.fanOut : 0)
      if case .blocks(let held) = node { blocks = held }
      node = nil
      for slot in slots {
        blocks[Int(slot)] = target?.advanced(by: base + slot - places.lowerBound).physicalBlock ?? 0
      }
      if !blocks.allSatisfy({ $0 == 0 }) { node = .blocks(blocks) }
    } else {
      var nodes = ContiguousArray<Node?>(repeating: nil, count: node == nil ? Self.fanOut : 0)
      if case .nodes(let held) = node { nodes = held }
      node = nil
      for slot in slots {
        replace(places, with: target, in: &nodes[Int(slot)], at: base + slot << shift, depth - 1)
      }
      if !nodes.allSatisfy({ $0 == nil }) { node = .nodes(nodes) }
    }
  }
}
