internal import Bytes
internal import Extents

/// The newest durable superblock of an open store, the slot that it is in, and the epoch that new views belong to.
///
/// Thread safety: any thread. `commit` and `setNextInode` are for the thread that has the checkpoint's turn.
final class SuperblockState: Sendable {
  private struct State {
    /// Its `nextInode` may be ahead of the durable one.
    var superblock: Superblock
    var slot: Int
    var epoch: Epoch
  }

  private let state: Locked<State>
  private let nodes: NodeCache

  init(_ superblock: Superblock, slot: Int, epoch: Epoch, nodes: NodeCache) {
    state = Locked(rank: .superblock, State(superblock: superblock, slot: slot, epoch: epoch))
    self.nodes = nodes
  }

  var newest: Superblock { state.withLock { $0.superblock } }

  /// The slot of the newest superblock; the next one goes into the other.
  var slot: Int { state.withLock { $0.slot } }

  /// The epoch of views that are made from the newest superblock, and which generation that has.
  var epoch: (epoch: Epoch, generation: UInt64) { state.withLock { ($0.epoch, $0.superblock.generation) } }

  /// The catalog as of the last checkpoint. Its nodes stay as they are as long as the epoch lives.
  var catalog: (catalog: Catalog, epoch: Epoch) {
    let (superblock, epoch) = state.withLock { ($0.superblock, $0.epoch) }
    return (Catalog(nodes: nodes, superblock: superblock), epoch)
  }

  /// `superblock` is durable in `slot`.
  ///
  /// - Parameter runs: blocks that nothing reaches any more but older views: free when those are gone.
  /// - Returns: the epoch of new views, and the one that ended, to be let go of without any lock.
  func commit(_ superblock: Superblock, slot: Int, retiring runs: [PhysicalRun]) -> (epoch: Epoch, old: Epoch) {
    state.withLock { state in
      let old = state.epoch
      state = State(superblock: superblock, slot: slot, epoch: old.end(retiring: runs))
      return (state.epoch, old)
    }
  }

  /// Inodes below `inode` are taken, though no superblock says so yet.
  func setNextInode(_ inode: UInt64) { state.withLock { $0.superblock.nextInode = inode } }

  /// Sets counts that an older program has not written, once, when the store is opened.
  func setCounts(nodeBlockCount: UInt64, reservedBlockCount: UInt64) {
    state.withLock { state in
      state.superblock.nodeBlockCount = nodeBlockCount
      state.superblock.reservedBlockCount = reservedBlockCount
    }
  }
}
