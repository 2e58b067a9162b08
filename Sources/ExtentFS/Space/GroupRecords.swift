internal import Bytes

/// The records of the groups: those of the last durable superblock, and those that the running checkpoint has made.
///
/// Bitmaps and checksum blocks share one record per group; this is where the two meet. A record that the space tree
/// does not have means a group that was never used: nothing of it is taken but its metadata blocks.
///
/// Thread safety: any thread. The source is called outside the lock. One thread at a time runs a checkpoint.
package final class GroupRecords: Sendable {
  /// Finds the record of a group in the space tree of the last durable superblock; nil where the tree has none.
  package typealias Source = @Sendable (_ group: UInt64) throws(ExtentFSError) -> GroupRecord?
  /// Goes through the space tree of the last durable superblock: hands out each record, and each range of groups of which the
  /// records cannot be read, with the reason.
  package typealias Survey =
    @Sendable (
      _ body: (_ group: UInt64, GroupRecord) -> Void, _ unreadable: (Range<UInt64>, ExtentFSError) -> Void
    ) throws(ExtentFSError) -> Void

  private struct State {
    /// What the last durable superblock leads to, as far as it was asked for; nil inside for "the tree has none".
    var durable: [UInt64: GroupRecord?] = [:]
    /// What the running checkpoint has written.
    var staged: [UInt64: GroupRecord] = [:]
    /// Groups whose staged record was not yet handed out.
    var changed: Set<UInt64> = []
  }

  private let source: Source
  private let survey: Survey
  private let state = Locked(rank: .groupRecords, State())

  /// Records that `source` finds; `survey` finds all of them.
  package init(source: @escaping Source, survey: @escaping Survey = { _, _ in }) {
    self.source = source
    self.survey = survey
  }

  /// Goes through all records; see ``Survey``.
  func forEach(
    _ body: (UInt64, GroupRecord) -> Void, unreadable: (Range<UInt64>, ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    try survey(body, unreadable)
  }

  /// The durable record of `group`, nil where it was never used.
  func record(of group: UInt64) throws(ExtentFSError) -> GroupRecord? {
    if let known = state.withLock({ $0.durable[group] }) { return known }
    let found = try source(group)
    return state.withLock { state in
      // What a checkpoint has put there meanwhile is newer than what was found.
      if let known = state.durable[group] { return known }
      state.durable[group] = .some(found)
      return found
    }
  }

  /// Changes what the running checkpoint will make the record of `group`. The record has been asked for before.
  func stage(_ group: UInt64, fresh: GroupRecord, _ change: (inout GroupRecord) -> Void) {
    state.withLock { state in
      var record = state.staged[group] ?? (state.durable[group] ?? nil) ?? fresh
      change(&record)
      state.staged[group] = record
      state.changed.insert(group)
    }
  }

  /// The records that were staged since the last call, in the order of their groups.
  func takeChanged() -> [(group: UInt64, record: GroupRecord)] {
    state.withLock { state in
      let records = state.changed.sorted().compactMap { group in state.staged[group].map { (group: group, record: $0) }
      }
      state.changed = []
      return records
    }
  }

  /// The groups whose staged record was not yet handed out.
  var changedGroups: Set<UInt64> { state.withLock { $0.changed } }

  /// Whether a checkpoint has staged records and has not ended.
  var isStaging: Bool { state.withLock { !$0.staged.isEmpty } }

  /// The checkpoint is durable: what it staged is what the superblock leads to.
  func didCommit() {
    state.withLock { state in
      for (group, record) in state.staged { state.durable[group] = .some(record) }
      state.staged = [:]
      state.changed = []
    }
  }

  /// The checkpoint failed: what it staged never was.
  func didFail() {
    state.withLock { state in
      state.staged = [:]
      state.changed = []
    }
  }
}
