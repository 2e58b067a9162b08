public import Bytes

/// Blocks of one size, and for each inode a chain that names the block at every place of the file; block 0 is a hole.
///
/// ``BlockChainFile`` gives byte-addressed files over any such store. All operations may be called from any thread.
/// (Design document, option B.)
public protocol BlockChainStore: Sendable {
  /// The size of the store's blocks.
  var blockSize: BlockSize { get }

  /// Takes a free block, whose contents are undefined. Never block 0.
  ///
  /// - Throws: `.outOfSpace` where no block is free.
  func allocateBlock() throws(StoreError) -> UInt64

  /// Frees `block` at once; it may be allocated again before this returns. So the caller makes sure first that no
  /// reader still has it.
  ///
  /// - Throws: `.notAllocated` where it is free already, or none of the store's.
  func freeBlock(_ block: UInt64) throws(StoreError)

  /// Reads into `buffer` from `block`, beginning `skip` bytes behind its start and not passing its end. The block must
  /// be allocated.
  func readBlock(_ block: UInt64, into buffer: UnsafeMutableRawBufferPointer, skip: Int) throws(StoreError)

  /// Writes `bytes` into `block`, beginning `skip` bytes behind its start and not passing its end. The block must be
  /// allocated, and nobody may read it meanwhile.
  func writeBlock(_ block: UInt64, _ bytes: UnsafeRawBufferPointer, skip: Int) throws(StoreError)

  /// As `ExtentStore.open`.
  func open(_ inode: Inode) throws(StoreError) -> OpenInode

  /// The chain of `inode`; an empty file's for an unknown one.
  func chain(of inode: Inode) throws(StoreError) -> BlockChain

  /// Makes `chain` the chain of `inode`, whole or not at all. No block is allocated or freed.
  ///
  /// - Parameter changed: the places outside which the new chain is the one that was set last.
  func setChain(_ chain: BlockChain, of inode: Inode, changed: Range<UInt64>) throws(StoreError)

  /// Forgets the chain of `inode`. No block is freed.
  func removeChain(of inode: Inode) throws(StoreError)

  /// Makes everything that completed before this call durable, where the store has a durable medium.
  func sync() throws(StoreError)
}
