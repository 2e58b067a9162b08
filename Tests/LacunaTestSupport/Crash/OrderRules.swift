import Bytes

/// The order in which a redirect-on-write store must call its device, checked over a recording.
///
/// 1. Before a commit record (a superblock) is written, all that it reaches outside the exempt ranges (a journal whose
///    records carry checksums) is durable, and the device's length is (rules R2 and R8).
/// 2. What a commit record on the medium reaches is neither written nor discarded; neither is what one reaches that is
///    written and not yet durable (rule R1).
package struct OrderRules: Sendable {
  /// Where commit records are written.
  package var commitRanges: [Range<UInt64>]
  /// What need not be durable before a commit record: ranges that recovery verifies by themselves.
  package var exemptRanges: [Range<UInt64>]
  /// The ranges that the newest commit record of an image reaches; empty where there is none.
  package var reachable: @Sendable (MediumImage) throws -> [Range<UInt64>]

  package init(
    commitRanges: [Range<UInt64>], exemptRanges: [Range<UInt64>] = [],
    reachable: @escaping @Sendable (MediumImage) throws -> [Range<UInt64>]
  ) {
    self.commitRanges = commitRanges
    self.exemptRanges = exemptRanges
    self.reachable = reachable
  }

  /// Goes through a recording.
  ///
  /// - Throws: `CheckFailure` for the first call out of order, and whatever `reachable` throws.
  package func check(_ log: CrashLog) throws {
    var cursor = CrashCursor(log)
    let live = MediumEditor(log.start)
    // By the number of the call that wrote the commit record; -1 for the durable one.
    var protected: [Int: [Range<UInt64>]] = [-1: try reachable(log.start)]
    for (number, call) in log.calls.enumerated() {
      let before = cursor.moment
      try checkReuse(call, number, protected)
      live.apply(call)
      cursor.advance()
      if isCommit(call) {
        let reached = try reachable(live.image())
        try checkDurable(before, call, number, reached)
        protected[number] = reached
      }
      let after = cursor.moment
      // A sync settled commit records: the newest on the medium is the one that counts.
      if before.pending.contains(where: { pending in
        isCommit(pending.call) && !after.pending.contains { $0.number == pending.number }
      }) {
        let pending = Set(after.pending.map(\.number))
        protected = protected.filter { pending.contains($0.key) }
        protected[-1] = try reachable(after.durable)
      }
    }
  }

  private func isCommit(_ call: CrashDevice.Call) -> Bool {
    guard case .write = call, let range = call.changedRange else { return false }
    // What is longer is formatting.
    return commitRanges.contains { $0.lowerBound <= range.lowerBound && range.upperBound <= $0.upperBound }
  }

  private func checkReuse(_ call: CrashDevice.Call, _ number: Int, _ protected: [Int: [Range<UInt64>]]) throws {
    guard let range = call.changedRange, !isCommit(call) else { return }
    for (commit, ranges) in protected {
      guard let hit = ranges.first(where: { $0.overlaps(range) }) else { continue }
      let owner = commit == -1 ? "the durable commit record" : "the commit record of call \(commit)"
      throw CheckFailure("call \(number) (\(call)) touches \(hit), which \(owner) reaches")
    }
  }

  private func checkDurable(
    _ moment: CrashMoment, _ call: CrashDevice.Call, _ number: Int, _ reached: [Range<UInt64>]
  ) throws {
    for pending in moment.pending where !isCommit(pending.call) {
      if let range = pending.call.changedRange {
        if exemptRanges.contains(where: { $0.lowerBound <= range.lowerBound && range.upperBound <= $0.upperBound }) {
          continue
        }
        // Other threads write meanwhile, for a later commit record.
        guard reached.contains(where: { $0.overlaps(range) }) else { continue }
      }
      // A discard that comes late harms nobody.
      if case .discard = pending.call { continue }
      throw CheckFailure(
        "call \(number) (\(call)) writes a commit record before call \(pending.number) (\(pending.call)) is durable")
    }
  }
}

extension CrashDevice.Call {
  /// The bytes that a write or a discard changes; nil for other calls, and where it changes none.
  package var changedRange: Range<UInt64>? {
    switch self {
    case .write(let offset, let bytes) where !bytes.isEmpty: offset..<offset + UInt64(bytes.count)
    case .discard(let range) where !range.isEmpty: range
    default: nil
    }
  }
}
