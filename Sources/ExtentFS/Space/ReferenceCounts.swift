internal import Extents

/// How one checkpoint changes the numbers of references.
///
/// Changes for nodes count at once, since who writes a node anew must know whether others have it. Those for data, of which
/// there may be many, are only noted, and applied in one pass in the order of their blocks.
///
/// What the tree says of a range of blocks may be lost: one of its nodes cannot be read. Then nobody knows how many lead to the
/// blocks in use there, and each of them has so many references from then on that it is never free again. The checkpoint writes
/// that in place of the node: were it only thought, and the node read again some day, a reference taken meanwhile would be missing.
///
/// One thread uses it. Memory: 32 bytes for each run of data that was retained or released.
final class ReferenceCounts {
  private let table: RefcountTree
  /// Calls its second argument with runs that have all blocks of a range that trees led to when the checkpoint began.
  private let forEachUsed: (Range<UInt64>, (Range<UInt64>) -> Void) throws(ExtentFSError) -> Void
  /// What could not be read, and the blocks that this part of the tree is for: the edits have all there is to know of them.
  private(set) var damage: ExtentFSError?
  private(set) var unknownParts: [Range<UInt64>] = []
  /// By how much the counts of nodes change.
  private var nodes: [UInt64: Int64] = [:]
  /// The nodes that have no reference left, and had an entry in the table.
  private var givenUp: Set<UInt64> = []
  /// Where the change of the counts of data changes, and by how much.
  private var steps: [(block: UInt64, change: Int64)] = []

  /// Counts as of the tree of shared runs at `root`.
  init(
    _ cache: NodeCache, root: TreeRoot,
    forEachUsed: @escaping (Range<UInt64>, (Range<UInt64>) -> Void) throws(ExtentFSError) -> Void = { _, _ in }
  ) {
    table = RefcountTree(cache, root: root)
    self.forEachUsed = forEachUsed
  }

  /// Whether no block has more than one reference.
  private var isTrivial: Bool { table.isEmpty && nodes.isEmpty && steps.isEmpty }

  // MARK: Nodes

  private func count(ofNode block: UInt64) throws(ExtentFSError) -> UInt64 {
    let stored = try table.countIfReadable(of: block) ?? UnknownRuns.count
    let (count, overflow) = stored.addingReportingOverflow(signed: nodes[block] ?? 0)
    guard !overflow else {
      throw ExtentFSError(.damaged, "the node in block \(block) has too many references, or too few")
    }
    return count
  }

  /// Whether the node in `block` has more than one reference.
  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool {
    if isTrivial { return false }
    return try count(ofNode: block) > 1
  }

  /// The node in `block` gets one more reference.
  func retain(node block: UInt64) throws(ExtentFSError) {
    try Self.check(block)
    nodes[block, default: 0] += 1
  }

  private static func check(_ block: UInt64) throws(ExtentFSError) {
    guard block < ExtentRecord.blockLimit else {
      throw ExtentFSError(.damaged, "a node pointer is out of range: block \(block)")
    }
  }

  /// The node in `block` loses a reference; true where it has none left.
  func release(node block: UInt64) throws(ExtentFSError) -> Bool {
    if isTrivial { return true }
    try Self.check(block)
    switch try count(ofNode: block) {
    case 0: throw ExtentFSError(.damaged, "the node in block \(block) is freed, and nothing references it")
    case 1:
      // Without an entry there is nothing to change.
      if try table.count(of: block) == 1 {
        nodes[block] = nil
      } else {
        nodes[block, default: 0] -= 1
        givenUp.insert(block)
      }
      return true
    default:
      nodes[block, default: 0] -= 1
      return false
    }
  }

  // MARK: Data

  /// Every block of `run` gets one more reference.
  func retain(_ run: PhysicalRun) { note(run, 1) }

  /// Every block of `run` loses a reference. True where it is known at once that none is left; else `finish` tells.
  func release(_ run: PhysicalRun) -> Bool {
    if isTrivial { return true }
    note(run, -1)
    return false
  }

  private func note(_ run: PhysicalRun, _ change: Int64) {
    steps.append((run.block, change))
    steps.append((run.block + run.count, -change))
  }

  // MARK: The pass

  /// The changes of the tree of shared runs, in order. Runs that touch and have equal counts are one, as far as a change touches
  /// them. To be called once, at the end.
  ///
  /// - Parameter giveUp: gets the blocks of data that have no reference left, in order.
  func finish(_ free: (PhysicalRun) throws(ExtentFSError) -> Void) throws(ExtentFSError) -> [KeyedEdit] {
    for (block, change) in nodes where change != 0 {
      steps.append((block, change))
      steps.append((block + 1, -change))
    }
    guard !steps.isEmpty else { return [] }
    steps.sort { $0.block < $1.block }
    var pass = ReferencePass()
    var unknown: [UnknownRuns] = []
    var part = RefcountPart.none
    var change: Int64 = 0
    for index in steps.indices {
      change += steps[index].change
      var next = steps[index].block
      guard change != 0, index + 1 < steps.count else { continue }
      let end = steps[index + 1].block
      while next < end {
        if !part.blocks.contains(next) {
          part = try table.part(at: next)
          try pass.enter(part)
          if let error = part.damage {
            damage = damage ?? error
            unknownParts.append(part.blocks)
            unknown.append(UnknownRuns())
            try forEachUsed(part.blocks) { unknown[unknown.count - 1].add($0) }
          }
        }
        let blocks = next..<min(end, part.blocks.upperBound)
        // A node's blocks are a piece of their own, and were given up already.
        func freeData(_ blocks: Range<UInt64>) throws(ExtentFSError) {
          if !givenUp.contains(blocks.lowerBound) {
            try free(PhysicalRun(block: blocks.lowerBound, count: blocks.length))
          }
        }
        if part.damage == nil {
          try pass.apply(change, to: blocks, freeData)
        } else {
          try unknown[unknown.count - 1].apply(change, to: blocks, freeData)
        }
        next = blocks.upperBound
      }
    }
    steps = []
    return (pass.finish() + unknown.flatMap(\.edits)).sorted { $0.key < $1.key }
  }
}

/// What stands in place of shared runs that cannot be read.
private struct UnknownRuns {
  /// How many references a block has of which that is not known.
  static var count: UInt64 { 1 << 32 }

  private struct Count: RunValue {
    var count: UInt64
    func advanced(by count: UInt64) -> Count { self }
  }

  private var runs = RunMap<Count>()

  /// Blocks that were in use.
  mutating func add(_ blocks: Range<UInt64>) {
    runs.replace(blocks, with: Count(count: Self.count))
  }

  /// Changes the count of each block of `blocks` by `change`; `body` gets those with none left.
  mutating func apply(
    _ change: Int64, to blocks: Range<UInt64>, _ body: (Range<UInt64>) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var pieces: [(blocks: Range<UInt64>, count: UInt64)] = []
    runs.forEachPiece(in: blocks) { piece, value in
      pieces.append((piece, value?.count ?? 1))
      return true
    }
    for piece in pieces {
      let (sum, overflow) = piece.count.addingReportingOverflow(signed: change)
      guard !overflow else {
        throw ExtentFSError(
          .damaged, "blocks \(piece.blocks) have \(piece.count) references, which change by \(change)")
      }
      if sum == 0 { try body(piece.blocks) }
      runs.replace(piece.blocks, with: sum > 1 ? Count(count: sum) : nil)
    }
  }

  /// The edits that make the tree so.
  var edits: [KeyedEdit] {
    runs.runs.map { run in
      let record = SharedRecord(length: run.positions.length, count: run.value.count)
      return KeyedEdit(key: run.positions.lowerBound, value: encoded(SharedRecord.encodedByteCount, record.encode))
    }
  }
}

/// Goes through shared runs from left to right, changes counts, and makes the edits of the tree.
private struct ReferencePass {
  /// The part of the tree that the blocks are in.
  private var part = RefcountPart.none
  /// What is left of the stored run that is being changed.
  private var rest: RefcountRun?
  /// The stored runs that were looked at to be changed, and the runs in their place, both in order.
  private var old: [RefcountRun] = []
  private var new: [RefcountRun] = []

  /// Goes on in a part that lies behind the one before.
  mutating func enter(_ part: RefcountPart) throws(ExtentFSError) {
    keepRest(before: part.blocks.lowerBound)
    guard rest == nil else {
      throw ExtentFSError(
        .damaged, "a shared run reaches over block \(part.blocks.lowerBound), where another node begins")
    }
    self.part = part
  }

  /// Changes the count of each block of `blocks`, which lie in the part and behind all before, by `change`; `body` gets those with none
  /// left.
  mutating func apply(
    _ change: Int64, to blocks: Range<UInt64>, _ body: (Range<UInt64>) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var next = blocks.lowerBound
    while next < blocks.upperBound {
      keepRest(before: next)
      if rest == nil { try findRest(at: next) }
      var end = blocks.upperBound
      var count: UInt64 = 1
      if let run = rest, run.blocks.lowerBound == next {
        end = min(end, run.blocks.upperBound)
        count = run.count
        rest = end < run.blocks.upperBound ? RefcountRun(end..<run.blocks.upperBound, run.count) : nil
      } else if let behind = try part.first(behind: next) {
        end = min(end, behind.blocks.lowerBound)
      }
      let (sum, overflow) = count.addingReportingOverflow(signed: change)
      guard !overflow else {
        throw ExtentFSError(.damaged, "blocks \(next..<end) have \(count) references, which change by \(change)")
      }
      if sum == 0 { try body(next..<end) } else { append(RefcountRun(next..<end, sum)) }
      next = end
    }
    // A run that begins where these end may be one with them.
    if rest == nil, let run = try floor(next), run.blocks.lowerBound == next { take(run) }
  }

  /// Looks for the stored run that holds `block`, and for one that ends there: it may be one with what begins there.
  private mutating func findRest(at block: UInt64) throws(ExtentFSError) {
    if block > 0, let run = try floor(block - 1), run.blocks.upperBound == block {
      take(run)
      keepRest(before: block)
    }
    if let run = try floor(block), run.blocks.contains(block) {
      take(run)
      keepRest(before: block)
    }
  }

  /// The last stored run that begins at `block` or before it.
  private mutating func floor(_ block: UInt64) throws(ExtentFSError) -> RefcountRun? {
    let run = try part.floor(block)
    if let run, let last = old.last, run != last, run.blocks.lowerBound < last.blocks.upperBound {
      throw ExtentFSError(.damaged, "shared runs overlap at block \(run.blocks.lowerBound)")
    }
    return run
  }

  private mutating func take(_ run: RefcountRun) {
    if run == old.last { return }
    old.append(run)
    rest = run
  }

  /// Keeps what is left of the run before `block` as it is.
  private mutating func keepRest(before block: UInt64) {
    guard let run = rest, run.blocks.lowerBound < block else { return }
    let end = min(block, run.blocks.upperBound)
    append(RefcountRun(run.blocks.lowerBound..<end, run.count))
    rest = end < run.blocks.upperBound ? RefcountRun(end..<run.blocks.upperBound, run.count) : nil
  }

  private mutating func append(_ run: RefcountRun) {
    guard run.count > 1 else { return }
    if let last = new.last, last.blocks.upperBound == run.blocks.lowerBound, last.count == run.count {
      new[new.count - 1].blocks = last.blocks.lowerBound..<run.blocks.upperBound
    } else {
      new.append(run)
    }
  }

  /// The edits that put the new runs in place of the old ones.
  mutating func finish() -> [KeyedEdit] {
    keepRest(before: .max)
    var edits: [KeyedEdit] = []
    edits.reserveCapacity(new.count)
    var position = 0
    for run in new {
      let key = run.blocks.lowerBound
      while position < old.count, old[position].blocks.lowerBound < key {
        edits.append(KeyedEdit(key: old[position].blocks.lowerBound, value: nil))
        position += 1
      }
      if position < old.count, old[position].blocks.lowerBound == key {
        position += 1
        if old[position - 1] == run { continue }
      }
      let record = SharedRecord(length: run.blocks.length, count: run.count)
      edits.append(KeyedEdit(key: key, value: encoded(SharedRecord.encodedByteCount, record.encode)))
    }
    edits += old[position...].map { KeyedEdit(key: $0.blocks.lowerBound, value: nil) }
    return edits
  }
}

extension UInt64 {
  fileprivate func addingReportingOverflow(signed change: Int64) -> (partialValue: UInt64, overflow: Bool) {
    change < 0 ? subtractingReportingOverflow(change.magnitude) : addingReportingOverflow(change.magnitude)
  }
}
