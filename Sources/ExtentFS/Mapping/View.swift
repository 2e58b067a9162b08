internal import Atomics
internal import BlockStores

/// An immutable picture of one volume's mapping, which readers use without a lock.
///
/// What holds for a block is said by the first of these that says anything: the active delta, the frozen one (there while
/// a checkpoint merges it), the tree.
final class View: AtomicReference, Sendable {
  /// The volume's number within the store.
  let inode: UInt64
  /// The volume's size in bytes.
  let byteCount: UInt64
  /// Changes since the last checkpoint began.
  let active: Delta
  /// Changes that a running checkpoint is merging into the tree.
  let frozen: Delta?
  /// The mapping as of the last checkpoint.
  let base: ExtentBase
  /// Keeps the blocks that this view maps from being used for anything else.
  let epoch: Epoch

  init(inode: UInt64, byteCount: UInt64, active: Delta, frozen: Delta?, base: ExtentBase, epoch: Epoch) {
    self.inode = inode
    self.byteCount = byteCount
    self.active = active
    self.frozen = frozen
    self.base = base
    self.epoch = epoch
  }

  /// This view with other deltas, or another base and epoch.
  func replacing(
    active: Delta? = nil, frozen: Delta?, base: ExtentBase? = nil, epoch: Epoch? = nil
  ) -> View {
    View(
      inode: inode, byteCount: byteCount, active: active ?? self.active, frozen: frozen, base: base ?? self.base,
      epoch: epoch ?? self.epoch)
  }
}
