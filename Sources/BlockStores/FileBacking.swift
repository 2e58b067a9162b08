public import Bytes
public import Extents

/// What a ``BlockFile`` needs of a store: space, bytes, and one file's mapping.
///
/// It is the narrow waist between the two block-based store designs and the one file implementation over them.
public protocol FileBacking: Sendable {
  /// The mapping that the store keeps.
  associatedtype Map: BlockMap

  /// The size of the store's blocks.
  var blockSize: BlockSize { get }

  /// As `ExtentStore.allocate`.
  func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun
  /// As `ExtentStore.free`.
  func free(_ run: PhysicalRun) throws(StoreError)
  /// As `ExtentStore.read`.
  func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError)
  /// As `ExtentStore.write`.
  func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError)
  /// As `ExtentStore.open`.
  func open(_ inode: Inode) throws(StoreError) -> OpenInode
  /// As `ExtentStore.extents`.
  func map(of inode: Inode) throws(StoreError) -> Map
  /// As `ExtentStore.setExtents`.
  func setMap(_ map: Map, of inode: Inode, changed: Range<UInt64>) throws(StoreError)
  /// As `ExtentStore.removeExtents`.
  func removeMap(of inode: Inode) throws(StoreError)
  /// As `ExtentStore.isShared`.
  func isShared(_ run: PhysicalRun) -> Bool
  /// As `ExtentStore.sync`.
  func sync() throws(StoreError)
}

/// A byte-addressed file over an extent store.
public typealias ExtentFile<Store: ExtentStore> = BlockFile<ExtentBacking<Store>>

/// A byte-addressed file over a block-chain store.
public typealias BlockChainFile<Store: BlockChainStore> = BlockFile<BlockChainBacking<Store>>

/// An extent store as the backing of a file.
public struct ExtentBacking<Store: ExtentStore>: FileBacking {
  let store: Store

  /// Wraps `store`.
  public init(_ store: Store) { self.store = store }

  public var blockSize: BlockSize { store.blockSize }
  public func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    try store.allocate(count, near: near)
  }
  public func free(_ run: PhysicalRun) throws(StoreError) { try store.free(run) }
  public func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    try unsafe store.read(into: buffer, from: block, skip: skip)
  }
  public func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    try unsafe store.write(bytes, to: block, skip: skip)
  }
  public func open(_ inode: Inode) throws(StoreError) -> OpenInode { try store.open(inode) }
  public func map(of inode: Inode) throws(StoreError) -> ExtentMap { try store.extents(of: inode) }
  public func setMap(_ map: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try store.setExtents(map, of: inode, changed: changed)
  }
  public func removeMap(of inode: Inode) throws(StoreError) { try store.removeExtents(of: inode) }
  public func isShared(_ run: PhysicalRun) -> Bool { store.isShared(run) }
  public func sync() throws(StoreError) { try store.sync() }
}

/// A block-chain store as the backing of a file. It allocates one block at a time, wherever the store has one.
public struct BlockChainBacking<Store: BlockChainStore>: FileBacking {
  let store: Store

  /// Wraps `store`.
  public init(_ store: Store) { self.store = store }

  public var blockSize: BlockSize { store.blockSize }

  public func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    PhysicalRun(block: try store.allocateBlock(), count: 1)
  }

  public func free(_ run: PhysicalRun) throws(StoreError) {
    for block in run.blocks { try store.freeBlock(block) }
  }

  public func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    var transfer = BlockTransfer(blockSize, block: block, skip: skip)
    while let part = transfer.next(of: buffer.count) {
      try unsafe store.readBlock(
        part.block, into: UnsafeMutableRawBufferPointer(rebasing: buffer[part.bytes]), skip: part.skip)
    }
  }

  public func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    var transfer = BlockTransfer(blockSize, block: block, skip: skip)
    while let part = transfer.next(of: bytes.count) {
      try unsafe store.writeBlock(part.block, UnsafeRawBufferPointer(rebasing: bytes[part.bytes]), skip: part.skip)
    }
  }

  public func open(_ inode: Inode) throws(StoreError) -> OpenInode { try store.open(inode) }
  public func map(of inode: Inode) throws(StoreError) -> BlockChain { try store.chain(of: inode) }
  public func setMap(_ map: BlockChain, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try store.setChain(map, of: inode, changed: changed)
  }
  public func removeMap(of inode: Inode) throws(StoreError) { try store.removeChain(of: inode) }
  public func isShared(_ run: PhysicalRun) -> Bool { false }
  public func sync() throws(StoreError) { try store.sync() }
}

/// Cuts a transfer over consecutive blocks at their borders.
private struct BlockTransfer {
  private let blockSize: BlockSize
  private var block: UInt64
  private var skip: Int
  private var done = 0

  init(_ blockSize: BlockSize, block: UInt64, skip: Int) {
    self.blockSize = blockSize
    self.block = block + blockSize.block(at: UInt64(skip))
    self.skip = blockSize.remainder(of: UInt64(skip))
  }

  /// The part of the next block, and the bytes of a buffer of `byteCount` that go there; nil at the end.
  mutating func next(of byteCount: Int) -> (block: UInt64, bytes: Range<Int>, skip: Int)? {
    guard done < byteCount else { return nil }
    let part = (block, done..<min(done + blockSize.byteCount - skip, byteCount), skip)
    done = part.1.upperBound
    block += 1
    skip = 0
    return part
  }
}
