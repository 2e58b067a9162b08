public import Bytes
internal import Extents

/// A block-chain store in memory. Untouched blocks cost no memory, and freed ones give theirs back.
///
/// Thread safety: the table of chains is guarded by a lock; bytes are read and written without one.
public final class MemoryBlockChainStore: BlockChainStore {
  private let space: MemorySpace
  private let files = Locked<[Inode: BlockChain]>(rank: .memoryFiles, [:])
  private let openInodes = OpenInodes()

  /// A store of `blockCount` blocks, of which the first is never used. Up to `residentLimit` free blocks keep their
  /// memory, so that they need not be fetched from the system again.
  ///
  /// - Throws: `.outOfRange` or `.deviceFailed` where the system has no addresses for so many blocks.
  public init(
    blockSize: BlockSize = .standard, blockCount: UInt64, residentLimit: UInt64 = 16384
  ) throws(StoreError) {
    space = try MemorySpace(blockSize: blockSize, blockCount: blockCount, residentLimit: residentLimit)
  }

  public var blockSize: BlockSize { space.blockSize }

  /// How many blocks are free.
  public var freeBlockCount: UInt64 { space.freeCount }

  public func allocateBlock() throws(StoreError) -> UInt64 { try space.allocate(1, near: nil).block }

  public func freeBlock(_ block: UInt64) throws(StoreError) { try space.free(PhysicalRun(block: block, count: 1)) }

  public func readBlock(_ block: UInt64, into buffer: UnsafeMutableRawBufferPointer, skip: Int) throws(StoreError) {
    try unsafe space.read(into: buffer, from: block, skip: skip)
  }

  public func writeBlock(_ block: UInt64, _ bytes: UnsafeRawBufferPointer, skip: Int) throws(StoreError) {
    try unsafe space.write(bytes, to: block, skip: skip)
  }

  public func open(_ inode: Inode) throws(StoreError) -> OpenInode { try openInodes.open(inode) }

  public func chain(of inode: Inode) throws(StoreError) -> BlockChain {
    files.withLock { $0[inode] } ?? BlockChain()
  }

  public func setChain(_ chain: BlockChain, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    files.withLock { $0[inode] = chain }
  }

  public func removeChain(of inode: Inode) throws(StoreError) {
    files.withLock { _ = $0.removeValue(forKey: inode) }
  }

  /// Does nothing: memory has no medium to be durable on.
  public func sync() throws(StoreError) {}
}
