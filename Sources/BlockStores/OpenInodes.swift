internal import Bytes

/// The right to change the mapping of one inode, which one user at a time has: an open file, or whoever breaks the inode's sharing.
/// It ends with this object's life.
public final class OpenInode: Sendable {
  private let inode: Inode
  private let all: OpenInodes

  fileprivate init(_ inode: Inode, of all: OpenInodes) { (self.inode, self.all) = (inode, all) }

  deinit { all.close(inode) }
}

/// Which inodes of a store are open: what a store needs to offer `open`. It may be used from any thread.
public final class OpenInodes: Sendable {
  private let inodes = Locked<Set<Inode>>(rank: .leaf, [])

  /// No inode is open.
  public init() {}

  /// Opens `inode`.
  ///
  /// - Throws: `.inUse` where somebody has it.
  public func open(_ inode: Inode) throws(StoreError) -> OpenInode {
    guard inodes.withLock({ $0.insert(inode).inserted }) else {
      throw StoreError(.inUse, "inode \(inode) is open already, and one user at a time may change it")
    }
    return OpenInode(inode, of: self)
  }

  fileprivate func close(_ inode: Inode) { inodes.withLock { _ = $0.remove(inode) } }
}
