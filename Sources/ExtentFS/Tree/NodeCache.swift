package import Bytes
package import Devices

/// Verified nodes in memory, of a bounded number of bytes, and the way to those that are not.
///
/// A node in it is found again by its whole pointer: where a block was given up and has another node now, the pointer
/// differs, and the old one falls out unused. So nothing needs to be told when blocks are freed.
///
/// Nodes lie in sets of up to eight, chosen by their block; a set gives one up by second chance. Each lock guards
/// a share of the sets and is never held during input and output. A hit takes one lock and allocates nothing.
package final class NodeCache: Sendable {
  /// Where nodes are read from.
  package let device: any BlockDevice
  /// The size of a node.
  package let blockSize: BlockSize

  private let stripes: [Locked<Stripe>]
  private let setCount: Int
  private let special = Locked(rank: .leaf, Special())

  /// The nodes that are not to be read from the device.
  private struct Special {
    /// Those that cannot be read. They stay so, whatever the device gives later: what follows from that follows once.
    var unreadable: [Wanted: ExtentFSError] = [:]
    /// Those that are not on the device yet, by their blocks.
    var unwritten: [UInt64: Node] = [:]

    static var unreadableCountMax: Int { 4096 }
  }

  /// A node that is asked for.
  private struct Wanted: Hashable {
    var pointer: BlockPointer
    var kind: NodeKind
    var level: Int
    var owner: UInt64
  }

  private struct Slot {
    var node: Node?
    var isUsed = false
  }

  private struct Stripe {
    var slots: ContiguousArray<Slot>
    // Where the search for a node to give up goes on, for each set.
    var hands: ContiguousArray<UInt8>
    let ways: Int
    var hits: UInt64 = 0
    var misses: UInt64 = 0

    init(setCount: Int, ways: Int) {
      slots = ContiguousArray(repeating: Slot(), count: setCount * ways)
      hands = ContiguousArray(repeating: 0, count: setCount)
      self.ways = ways
    }

    mutating func find(_ pointer: BlockPointer, inSet set: Int) -> Node? {
      for index in set * ways..<(set + 1) * ways {
        if let node = slots[index].node, node.pointer == pointer {
          slots[index].isUsed = true
          hits &+= 1
          return node
        }
      }
      misses &+= 1
      return nil
    }

    /// Puts `node` in place of an older one of its block, else of nothing, else of one not used since the hand's last
    /// round. Returns what it replaced, so that it is freed outside the lock.
    mutating func insert(_ node: Node, inSet set: Int) -> Node? {
      let start = set * ways
      var place = (start..<start + ways).first { slots[$0].node?.pointer.block == node.pointer.block }
      place = place ?? (start..<start + ways).first { slots[$0].node == nil }
      let index = place ?? nextVictim(inSet: set)
      let old = slots[index].node
      slots[index] = Slot(node: node)
      return old
    }

    private mutating func nextVictim(inSet set: Int) -> Int {
      // Two rounds at most: the first one takes away every mark.
      while true {
        let index = set * ways + Int(hands[set])
        hands[set] = UInt8((Int(hands[set]) + 1) % ways)
        if !slots[index].isUsed { return index }
        slots[index].isUsed = false
      }
    }
  }

  /// A cache of at most `byteLimit` bytes of nodes, but at least one node.
  package init(device: any BlockDevice, blockSize: BlockSize, byteLimit: Int) {
    self.device = device
    self.blockSize = blockSize
    let nodeCount = max(1, byteLimit / blockSize.byteCount)
    let ways = min(8, nodeCount)
    let stripeCount = min(16, nodeCount / ways)
    let setsPerStripe = nodeCount / ways / stripeCount
    setCount = stripeCount * setsPerStripe
    stripes = (0..<stripeCount).map { _ in Locked(rank: .nodeCache, Stripe(setCount: setsPerStripe, ways: ways)) }
  }

  private func place(of block: UInt64) -> (stripe: Int, set: Int) {
    // Fibonacci hashing: neighbouring blocks spread over all sets.
    let set = Int(truncatingIfNeeded: (block &* 0x9E37_79B9_7F4A_7C15) >> 33) % setCount
    return (set % stripes.count, set / stripes.count)
  }

  /// The node that `pointer` refers to, from memory or from the device.
  ///
  /// - Parameter owner: 0; for nodes of extents, which volumes share, it means nothing.
  /// - Throws: `ExtentFSError` with `damaged` where what is there is not that node of that kind, level and owner, and
  ///   with `device` where it cannot be read.
  package func node(
    _ pointer: BlockPointer, kind: NodeKind, level: Int, owner: UInt64
  ) throws(ExtentFSError) -> Node {
    let (stripe, set) = place(of: pointer.block)
    if let node = stripes[stripe].withLock({ $0.find(pointer, inSet: set) }) ?? unwritten(pointer) {
      guard node.kind == kind, node.level == level, kind == .extents || node.owner == owner else {
        throw ExtentFSError(
          .damaged,
          "block \(pointer.block) is a node of kind \(node.kind), level \(node.level) and owner \(node.owner), where one of kind \(kind), level \(level) and owner \(owner) should be"
        )
      }
      return node
    }
    let wanted = Wanted(pointer: pointer, kind: kind, level: level, owner: kind == .extents ? 0 : owner)
    if let error = special.withLock({ $0.unreadable[wanted] }) { throw error }
    let node: Node
    do throws(ExtentFSError) {
      let start = blockSize.offset(of: min(pointer.block, device.byteCount >> blockSize.shift))
      node = try device.withSecondAttempt(start..<start + UInt64(blockSize.byteCount)) { () throws(ExtentFSError) in
        try read(pointer, kind: kind, level: level, owner: owner)
      }
    } catch {
      let error = error.about(block: pointer.block)
      if error.isUnreadable {
        special.withLock { if $0.unreadable.count < Special.unreadableCountMax { $0.unreadable[wanted] = error } }
      }
      throw error
    }
    insert(node)
    return node
  }

  private func read(
    _ pointer: BlockPointer, kind: NodeKind, level: Int, owner: UInt64
  ) throws(ExtentFSError) -> Node {
    guard !pointer.isNull, pointer.block < device.byteCount >> blockSize.shift else {
      throw ExtentFSError(.damaged, "a pointer to a node of kind \(kind) is out of range: block \(pointer.block)")
    }
    let bytes = unsafe Node.allocateBytes(blockSize.byteCount)
    do throws(ExtentFSError) {
      try unsafe device.readPart(into: bytes, at: blockSize.offset(of: pointer.block))
    } catch {
      unsafe bytes.deallocate()
      throw error
    }
    return try unsafe Node.decode(
      takingOwnershipOf: bytes, pointer: pointer, kind: kind, level: level, owner: owner)
  }

  /// The root node of a tree that is not empty.
  package func root(_ root: TreeRoot, kind: NodeKind, owner: UInt64) throws(ExtentFSError) -> Node {
    try node(root.pointer, kind: kind, level: root.height - 1, owner: owner)
  }

  /// Child `index` of `parent`, whose keys all lie below `upper`, with its keys held against those of its parent.
  ///
  /// - Throws: `ExtentFSError` as `node` does, and with `damaged` where the child's first key is not the one in its parent, or
  ///   where it reaches to the next one.
  package func child(
    of parent: Node, at index: Int, upper: UInt64?
  ) throws(ExtentFSError) -> (node: Node, upper: UInt64?) {
    let child = try node(parent.child(at: index), kind: parent.kind, level: parent.level - 1, owner: parent.owner)
    let upper = index + 1 < parent.count ? parent.key(at: index + 1) : upper
    guard child.key(at: 0) == parent.key(at: index), child.lies(below: upper) else {
      throw ExtentFSError(
        .damaged,
        "block \(child.pointer.block) has keys from \(child.key(at: 0)) to \(child.key(at: child.count - 1)), where its parent has \(parent.key(at: index)) up to \(upper ?? .max)"
      ).about(block: child.pointer.block)
    }
    return (child, upper)
  }

  /// Takes in a node just written.
  package func insert(_ node: Node) {
    let (stripe, set) = place(of: node.pointer.block)
    _ = stripes[stripe].withLock { $0.insert(node, inSet: set) }
  }

  /// Holds a node that is about to be written, so that it is found, until `endWriting`.
  func beginWriting(_ node: Node) { special.withLock { $0.unwritten[node.pointer.block] = node } }

  /// Holds these nodes no more: they are on the device, or never will be.
  func endWriting(_ nodes: [Node]) {
    special.withLock { special in for node in nodes { special.unwritten[node.pointer.block] = nil } }
  }

  private func unwritten(_ pointer: BlockPointer) -> Node? {
    special.withLock { special in
      guard let node = special.unwritten[pointer.block], node.pointer == pointer else { return nil }
      return node
    }
  }

  /// How often a node was found in memory, and how often it was not.
  package var counts: (hits: UInt64, misses: UInt64) {
    var sum: (hits: UInt64, misses: UInt64) = (0, 0)
    for stripe in stripes {
      let counts = stripe.withLock { ($0.hits, $0.misses) }
      sum = (sum.hits + counts.0, sum.misses + counts.1)
    }
    return sum
  }

  /// How many nodes are in memory. O(size of the cache).
  package var nodeCount: Int {
    stripes.reduce(0) { sum, stripe in sum + stripe.withLock { $0.slots.count { $0.node != nil } } }
  }
}

extension Node {
  /// Whether all that the node has ends at or before the key `upper`.
  func lies(below upper: UInt64?) -> Bool {
    guard let upper else { return true }
    if kind == .extents, level == 0 { return extent(at: count - 1).blocks.upperBound <= upper }
    return key(at: count - 1) < upper
  }
}
