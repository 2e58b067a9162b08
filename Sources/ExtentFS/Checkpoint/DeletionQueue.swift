internal import Bytes

/// An inode without a name, whose tree is to be given up.
package struct Deletion: Sendable {
  package var inode: UInt64
  /// What it is: `the deleted volume 'vm1'`; nil where it was deleted before the store was opened, since no name is stored of it.
  package var name: String?
  /// How many blocks it still maps, those included that others share, as far as is known: 0 for a throwaway before its turn.
  package var mappedBlockCount: UInt64
  /// Why what it has is not given back; nil where nothing is known against it.
  package var damage: ExtentFSError?

  /// What it is, in words.
  package var text: String { name ?? "a volume that was deleted earlier (inode \(inode))" }
}

/// The inodes whose trees are to be given up, in the order of their turns.
///
/// Invariant: an inode is in the queue once; a damaged one is not among those whose turn comes.
///
/// Thread safety: any thread.
final class DeletionQueue: Sendable {
  private struct State {
    /// Those whose turn comes, in that order.
    var waiting: [Deletion] = []
    /// Those whose trees cannot be read: they stay as they are while the store is open.
    var damaged: [Deletion] = []
    /// Whether all of them are known: those that the catalog had when the store was opened were looked for.
    var isComplete = false
  }

  private let state = Locked(rank: .deletionQueue, State())

  var isComplete: Bool { state.withLock { $0.isComplete } }

  /// Those whose turn comes, in that order.
  var waiting: [Deletion] { state.withLock { $0.waiting } }

  var isEmpty: Bool { state.withLock { $0.waiting.isEmpty } }

  /// Those whose turn comes, then those that are damaged.
  var all: [Deletion] { state.withLock { $0.waiting + $0.damaged } }

  /// Adds what was deleted just now.
  func append(_ deletions: [Deletion]) { state.withLock { $0.waiting += deletions } }

  /// `found` are all that the catalog has. Those that were deleted since the store was opened are known, and have names.
  func complete(with found: [Deletion]) {
    state.withLock { state in
      guard !state.isComplete else { return }
      let known = Set(state.waiting.map(\.inode))
      state.waiting = found.filter { !known.contains($0.inode) } + state.waiting
      state.isComplete = true
    }
  }

  /// A step has given up a part of some: `left` says how many blocks each still maps, or nil where nothing is left.
  func didDrop(_ left: [UInt64: UInt64?]) {
    state.withLock { state in
      state.waiting = state.waiting.compactMap { deletion in
        guard let left = left[deletion.inode] else { return deletion }
        return left.map { Deletion(inode: deletion.inode, name: deletion.name, mappedBlockCount: $0) }
      }
    }
  }

  /// `inode` is gone.
  func remove(_ inode: UInt64) { state.withLock { $0.waiting.removeAll { $0.inode == inode } } }

  /// Takes `deletion` out of those whose turn comes, since `error` says that its tree cannot be read.
  func setAside(_ deletion: Deletion, _ error: ExtentFSError) {
    var deletion = deletion
    deletion.damage = error
    state.withLock { state in
      state.waiting.removeAll { $0.inode == deletion.inode }
      state.damaged.append(deletion)
    }
  }
}
