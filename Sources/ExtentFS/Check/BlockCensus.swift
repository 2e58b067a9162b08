internal import Extents

/// How many places lead to a block.
struct ReferenceCount: RunValue {
  var count: UInt64
  func advanced(by count: UInt64) -> ReferenceCount { self }
}

/// Which blocks a walk of the trees has met, and how often; and what the bitmaps on the device say of them.
///
/// Memory: two bits for each block of the groups that have a bitmap, a third one in those that hold nodes, and the runs of blocks
/// that were met more than once.
struct BlockCensus {
  enum Use { case data, node }

  /// One group's blocks.
  final class Group {
    /// What the device says is in use; nil where it cannot be read.
    let stored: Bitmap?
    fileprivate(set) var met: Bitmap
    /// Those of them that hold nodes; nil for none.
    fileprivate(set) var nodes: Bitmap?

    init(stored: Bitmap?, count: Int) {
      self.stored = stored
      met = Bitmap(count: count)
    }
  }

  private let geometry: StoreGeometry
  private let blockCount: UInt64
  private(set) var groups: [UInt64: Group] = [:]
  /// How many blocks were met, and how many of them hold nodes.
  private(set) var metCount: UInt64 = 0
  private(set) var nodeCount: UInt64 = 0
  /// The blocks that were met more than once, with how often.
  private(set) var repeated = RunMap<ReferenceCount>()

  /// No block met yet, of a device of `blockCount`.
  init(_ geometry: StoreGeometry, blockCount: UInt64) {
    self.geometry = geometry
    self.blockCount = blockCount
  }

  /// Says what the bitmap of `group` has, or that there is one that cannot be read. Blocks of groups without one are not counted:
  /// their number could be that of a device of any size.
  mutating func add(_ group: UInt64, stored: Bitmap?) {
    groups[group] = Group(stored: stored, count: Int(geometry.blocksPerGroup))
  }

  /// Counts one more place that leads to each block of `run`.
  ///
  /// - Returns: how many of them nothing had led to; and what is wrong with the run, of which the rest is then not counted.
  mutating func count(_ run: PhysicalRun, as use: Use) -> (newCount: UInt64, problem: String?) {
    let before = metCount
    var next = run.block
    let (sum, overflows) = run.block.addingReportingOverflow(run.count)
    let end = overflows ? .max : sum
    while next < end {
      guard let number = geometry.group(of: next), next < blockCount,
        geometry.indexInGroup(of: next) >= StoreGeometry.metadataBlocksPerGroup
      else { return (metCount - before, "references block \(next), which is not a block for data or nodes") }
      guard let group = groups[number] else {
        return (metCount - before, "references block \(next) in group \(number), which has no bitmap")
      }
      let first = geometry.firstBlock(ofGroup: number)
      let stop = min(end, blockCount, first + geometry.blocksPerGroup)
      if let wrong = count(Int(next - first)..<Int(stop - first), first, group, use) {
        return (metCount - before, wrong)
      }
      next = stop
    }
    return (metCount - before, nil)
  }

  private mutating func count(_ positions: Range<Int>, _ first: UInt64, _ group: Group, _ use: Use) -> String? {
    var next = positions.lowerBound
    while next < positions.upperBound {
      let start = next
      if group.met.contains(start) {
        next = group.met.firstClear(from: start, before: positions.upperBound) ?? positions.upperBound
        let hasOther =
          use == .node
          ? group.nodes?.containsAll(of: start..<next) != true : group.nodes?.containsAny(of: start..<next) == true
        if hasOther {
          return
            "references block \(first + UInt64(start)) as \(use), and something else references it as something else"
        }
        countAgain(first + UInt64(start)..<first + UInt64(next))
      } else {
        next = group.met.firstSet(from: start, before: positions.upperBound) ?? positions.upperBound
        group.met.insert(start..<next)
        metCount += UInt64(next - start)
        if use == .node {
          if group.nodes == nil { group.nodes = Bitmap(count: group.met.count) }
          group.nodes?.insert(start..<next)
          nodeCount += UInt64(next - start)
        }
      }
    }
    return nil
  }

  private mutating func countAgain(_ blocks: Range<UInt64>) {
    var pieces: [(Range<UInt64>, UInt64)] = []
    repeated.forEachPiece(in: blocks) { piece, value in
      pieces.append((piece, (value?.count ?? 1) + 1))
      return true
    }
    for (piece, count) in pieces { repeated.replace(piece, with: ReferenceCount(count: count)) }
  }

  /// How many places were found that lead to `block`.
  func references(of block: UInt64) -> UInt64 {
    if let run = repeated.run(at: block) { return run.value.count }
    guard let number = geometry.group(of: block), let group = groups[number] else { return 0 }
    return group.met.contains(Int(geometry.indexInGroup(of: block))) ? 1 : 0
  }

  /// Calls `body` with blocks of which `table`, the tree of shared runs, does not say how many places lead to them, with what it
  /// says and with what was found; in no order, until it returns false.
  func forEachDifference(
    from table: RunMap<ReferenceCount>, _ body: (Range<UInt64>, _ said: UInt64, _ found: UInt64) -> Bool
  ) {
    var shouldContinue = true
    table.forEachRun(in: 0..<UInt64.max) { run in
      repeated.forEachPiece(in: run.positions) { piece, value in
        let found = value?.count ?? references(of: piece.lowerBound)
        if found != run.value.count { shouldContinue = body(piece, run.value.count, found) }
        return shouldContinue
      }
      return shouldContinue
    }
    guard shouldContinue else { return }
    repeated.forEachRun(in: 0..<UInt64.max) { run in
      table.forEachPiece(in: run.positions) { piece, value in
        if value == nil { shouldContinue = body(piece, 1, run.value.count) }
        return shouldContinue
      }
      return shouldContinue
    }
  }
}
