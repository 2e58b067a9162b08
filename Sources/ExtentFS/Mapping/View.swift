internal import Atomics
internal import Extents

/// What may be done with a volume.
package enum VolumeAccess: Sendable {
  /// Reading and writing.
  case writable
  /// Reading.
  case readOnly
  /// Nothing: it is gone, and those who had it open are told so.
  case deleted
}

/// An immutable picture of one volume's mapping, which readers use without a lock.
///
/// What holds for a block is said by the first of these that says anything: the active overlay, the frozen one (there while
/// a checkpoint merges it), the tree.
final class View: AtomicReference, Sendable {
  /// The volume's number within the store.
  let inode: UInt64
  /// The volume's size in bytes.
  let byteCount: UInt64
  /// What may be done with the volume.
  let access: VolumeAccess
  /// Whether changes survive the end of the process: not so for a throwaway.
  let isJournaled: Bool
  /// Changes since the last checkpoint began.
  let active: Overlay
  /// Changes that a running checkpoint is merging into the tree.
  let frozen: Overlay?
  /// The mapping as of the last checkpoint.
  let base: ExtentBase
  /// Keeps the blocks that this view maps from being used for anything else.
  let epoch: Epoch

  init(
    inode: UInt64, byteCount: UInt64, access: VolumeAccess, isJournaled: Bool, active: Overlay, frozen: Overlay?,
    base: ExtentBase, epoch: Epoch
  ) {
    self.inode = inode
    self.byteCount = byteCount
    self.access = access
    self.isJournaled = isJournaled
    self.active = active
    self.frozen = frozen
    self.base = base
    self.epoch = epoch
  }

  /// The view of an inode without changes since the last checkpoint.
  convenience init(
    inode: UInt64, _ record: InodeRecord, access: VolumeAccess? = nil, active: Overlay = Overlay(), epoch: Epoch
  ) {
    self.init(
      inode: inode, byteCount: record.byteCount, access: access ?? record.access, isJournaled: !record.isThrowaway,
      active: active, frozen: nil, base: record.base, epoch: epoch)
  }

  /// The view of a volume that is gone. It holds no blocks.
  static func deleted(inode: UInt64) -> View {
    View(
      inode: inode, byteCount: 0, access: .deleted, isJournaled: true, active: Overlay(), frozen: nil,
      base: ExtentBase(), epoch: Epoch { _ in })
  }

  /// This view with other overlays, and in another epoch.
  func replacing(
    active: Overlay? = nil, frozen: Overlay?, access: VolumeAccess? = nil, epoch: Epoch? = nil
  ) -> View {
    View(
      inode: inode, byteCount: byteCount, access: access ?? self.access, isJournaled: isJournaled,
      active: active ?? self.active,
      frozen: frozen, base: base, epoch: epoch ?? self.epoch)
  }
}
