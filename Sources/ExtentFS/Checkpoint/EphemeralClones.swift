internal import Bytes
internal import Extents

/// What there is of ephemeral clones (throwaways) outside the catalog: the records of those that no checkpoint has written, and the
/// blocks that those which are gone had mapped.
///
/// Thread safety: any thread may read. Changes are made under the checkpoint's turn, so that a checkpoint sees one state.
final class EphemeralClones: Sendable {
  private struct State {
    var unwritten: [UInt64: InodeRecord] = [:]
    var pendingFree: [PhysicalRun] = []
  }

  private let state = Locked(rank: .ephemeralClones, State())

  /// Those that no checkpoint has written, by inode.
  var unwritten: [UInt64: InodeRecord] { state.withLock { $0.unwritten } }
  /// How many those are.
  var unwrittenCount: Int { state.withLock { $0.unwritten.count } }
  /// What the catalog would say of `inode`; nil where that is none of them.
  func record(of inode: UInt64) -> InodeRecord? { state.withLock { $0.unwritten[inode] } }

  /// Blocks that no tree reaches, of clones that are gone: free when the next checkpoint is durable.
  var pendingFree: [PhysicalRun] { state.withLock { $0.pendingFree } }

  func add(_ record: InodeRecord, of inode: UInt64) { state.withLock { $0.unwritten[inode] = record } }

  /// `inode` is gone, which had mapped `runs` that no tree reaches. False where a checkpoint has written it.
  func remove(_ inode: UInt64, freeing runs: [PhysicalRun]) -> Bool {
    state.withLock { state in
      state.pendingFree += runs
      return state.unwritten.removeValue(forKey: inode) != nil
    }
  }

  /// A checkpoint is durable that has written all of them.
  func didCheckpoint() { state.withLock { $0 = State() } }
}
