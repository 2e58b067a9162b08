public import Bytes
public import Extents

/// Contiguous runs of blocks, and for each inode a sorted list of extents whose gaps are holes.
///
/// The store hands out space and keeps mappings; what a file is made of it lets others decide: ``ExtentFile`` gives
/// byte-addressed files over any such store. Numbers of blocks are `UInt64`, below 2^63. All operations may be called
/// from any thread. (Design document, option C.)
public protocol ExtentStore: Sendable {
  /// The size of the store's blocks.
  var blockSize: BlockSize { get }

  /// Takes a contiguous run of up to `count` free blocks, at least one; possibly fewer than asked, never more.
  ///
  /// What the blocks hold is undefined.
  ///
  /// - Parameter near: where the run would best begin: the block after the one that holds the file's preceding block.
  /// - Throws: `.outOfSpace` where no block is free.
  func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun

  /// Gives one reference to each block of `run` up; blocks that nobody else refers to are free at once, and may be
  /// allocated again before this returns. So the caller makes sure first that no reader still has them.
  ///
  /// - Throws: `.notAllocated` where a block of the run is free, or none of the store's; then nothing has changed.
  func free(_ run: PhysicalRun) throws(StoreError)

  /// Reads into `buffer` the bytes of the blocks from `block` on, beginning `skip` bytes behind the start of `block`.
  /// The blocks must be allocated.
  func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError)

  /// Writes `bytes` into the blocks from `block` on, beginning `skip` bytes behind the start of `block`. The blocks must
  /// be allocated, and nobody may read them meanwhile.
  func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError)

  /// Opens `inode` for the one user who may change its mapping, until what this returns goes. ``BlockFile`` does so. The calls below are
  /// that user's, and nothing asks whether one has it.
  ///
  /// - Throws: `.inUse` where it is open already.
  func open(_ inode: Inode) throws(StoreError) -> OpenInode

  /// The mapping of `inode`; an empty file's for an unknown one.
  func extents(of inode: Inode) throws(StoreError) -> ExtentMap

  /// Makes `extents` the mapping of `inode`, whole or not at all. References to blocks do not change.
  ///
  /// - Parameter changed: the blocks outside which the new mapping is the one that was set last.
  func setExtents(_ extents: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError)

  /// Forgets the mapping of `inode`. References to blocks do not change.
  func removeExtents(of inode: Inode) throws(StoreError)

  /// Whether any block of `run`, which is allocated, has more than one reference. Never, where files cannot share blocks.
  func isShared(_ run: PhysicalRun) -> Bool

  /// Makes everything that completed before this call durable, where the store has a durable medium.
  func sync() throws(StoreError)
}

/// An extent store in which several files can share blocks.
///
/// Each allocated block has a count of references, one for every mapping of it. A clone shares every block with its
/// source, for the price of counting; a block with several references is not written in place. (Design document,
/// "Copy-on-Write support".)
public protocol COWStore: ExtentStore {
  /// Gives `destination`, which must be unknown, the mapping of `source`, and raises the count of every block in it. Where `source` is
  /// open as a file, ``BlockFile/clone(to:)`` is the way, which keeps the file's writers out.
  ///
  /// - Returns: `destination`, open for the caller.
  /// - Throws: `.wrongInode` where `destination` has a mapping, `.inUse` where it is open.
  @discardableResult
  func clone(_ source: Inode, to destination: Inode) throws(StoreError) -> OpenInode

  /// How many references `block` has; 0 where it is free.
  func referenceCount(of block: UInt64) throws(StoreError) -> UInt64

  /// Breaks sharing: afterwards each mapped block of `inode` in `blocks` has one reference, and what it holds is what
  /// it held. Shared blocks are copied to new ones, one reference to each old one is given up, and the mapping follows.
  /// The inode is open meanwhile: under an open file, blocks would be freed that the file still has.
  ///
  /// - Returns: the mapping as it is now.
  /// - Throws: `.inUse` where the inode is open; `.outOfSpace` where there is no room for the copies; then nothing has changed.
  func breakSharing(of inode: Inode, in blocks: Range<UInt64>) throws(StoreError) -> ExtentMap
}
