internal import BlockStores
internal import Devices

/// How many references blocks have: what the tree of shared runs says, and how the running checkpoint changes that.
///
/// A block that is in use and in no shared run has one reference. Changes are kept as runs of their new counts, so that each
/// shows at once, and reach the tree in one pass at the end, in the order of the blocks.
///
/// One thread uses it, for one checkpoint. Memory: a run for each piece of the table that was looked at to be changed.
final class ReferenceCounts<Device: BlockDevice> {
  private let table: TreeReader<Device>
  /// The counts of all blocks that were changed.
  private var changed = RunMap<References>()

  /// The counts of the tree of shared runs at `root`.
  init(_ nodes: NodeCache<Device>, root: TreeRoot) { table = TreeReader(cache: nodes, root: root, kind: .shared) }

  /// Whether no block has more than one reference.
  private var isTrivial: Bool { table.root.isEmpty && changed.isEmpty }

  /// Whether `block` has more than one reference.
  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool {
    if isTrivial { return false }
    var isShared = false
    try forEachPiece(of: PhysicalRun(block: block, count: 1)) { _, count in isShared = count > 1 }
    return isShared
  }

  /// Calls `body` with pieces that cover `run`, in order, and the count of each.
  func forEachPiece(
    of run: PhysicalRun, _ body: (Range<UInt64>, UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    try changed.forEachPiece(in: run.blocks) { piece, known throws(ExtentFSError) in
      if let known {
        try body(piece, known.count)
      } else {
        try forEachStoredPiece(in: piece, body)
      }
      return true
    }
  }

  private func forEachStoredPiece(
    in blocks: Range<UInt64>, _ body: (Range<UInt64>, UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var next = blocks.lowerBound
    try forEachEntry(touching: blocks) { entry, record throws(ExtentFSError) in
      let shared = entry.clamped(to: blocks)
      guard !shared.isEmpty else { return }
      if next < shared.lowerBound { try body(next..<shared.lowerBound, 1) }
      try body(shared, record.count)
      next = shared.upperBound
    }
    if next < blocks.upperBound { try body(next..<blocks.upperBound, 1) }
  }

  /// Calls `body` with the stored entries that overlap `blocks` or touch it, in order.
  private func forEachEntry(
    touching blocks: Range<UInt64>, _ body: (Range<UInt64>, SharedRecord) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var end: UInt64 = 0
    try table.forEach(fromFloorOf: blocks.lowerBound) { entry throws(ExtentFSError) in
      guard entry.key <= blocks.upperBound else { return false }
      let record = try entry.withValue { value throws(ExtentFSError) in try SharedRecord(decoding: value, at: 0) }
      guard entry.key >= end, entry.key < ExtentRecord.blockLimit else {
        throw ExtentFSError(.damaged, "shared runs overlap at block \(entry.key)")
      }
      end = entry.key + record.length
      if end >= blocks.lowerBound { try body(entry.key..<end, record) }
      return true
    }
  }

  /// Every block of `run`, all of which are in use, gets one more reference.
  func retain(_ run: PhysicalRun) throws(ExtentFSError) {
    try forEachPieceToChange(of: run) { piece, count throws(ExtentFSError) in
      guard count < .max else { throw ExtentFSError(.damaged, "blocks \(piece) have too many references") }
      changed.replace(piece, with: References(count + 1))
    }
  }

  /// Every block of `run` loses a reference. `body` gets the blocks that have none left.
  func release(
    _ run: PhysicalRun, _ body: (PhysicalRun) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    if isTrivial { return try body(run) }
    try forEachPieceToChange(of: run) { piece, count throws(ExtentFSError) in
      if count > 1 {
        changed.replace(piece, with: References(count - 1))
      } else {
        try body(PhysicalRun(block: piece.lowerBound, count: piece.length))
      }
    }
  }

  /// As `forEachPiece`, but `body` may change counts.
  private func forEachPieceToChange(
    of run: PhysicalRun, _ body: (Range<UInt64>, UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    var pieces: [(Range<UInt64>, UInt64)] = []
    try forEachPiece(of: run) { piece, count in pieces.append((piece, count)) }
    for (piece, count) in pieces { try body(piece, count) }
  }

  /// The changes of the tree of shared runs, in order. Runs that touch and have equal counts are one.
  func edits() throws(ExtentFSError) -> [KeyedEdit] {
    var runs = RunMap<References>()
    var stored: [UInt64: SharedRecord] = [:]
    try changed.forEachRun(in: 0..<UInt64.max) { run throws(ExtentFSError) in
      try forEachEntry(touching: run.positions) { entry, record in
        guard stored.updateValue(record, forKey: entry.lowerBound) == nil else { return }
        runs.replace(entry, with: References(record.count))
      }
      runs.replace(run.positions, with: run.value.count > 1 ? run.value : nil)
      return true
    }
    var edits: [KeyedEdit] = []
    for run in runs.runs {
      let record = SharedRecord(length: run.positions.length, count: run.value.count)
      guard stored.removeValue(forKey: run.positions.lowerBound) != record else { continue }
      edits.append(
        KeyedEdit(key: run.positions.lowerBound, value: encoded(SharedRecord.encodedByteCount, record.encode)))
    }
    edits += stored.keys.map { KeyedEdit(key: $0, value: nil) }
    return edits.sorted { $0.key < $1.key }
  }
}

/// The count of each block of a run.
private struct References: RunValue {
  let count: UInt64

  init(_ count: UInt64) { self.count = count }

  func advanced(by count: UInt64) -> References { self }
}
