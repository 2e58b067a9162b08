import BlockStores
import Bytes
import LacunaTestSupport

// The stores that the suites run on. All have blocks of 512 bytes.

extension BlockSize {
  /// The smallest size there is, so that borders are near.
  static let small: BlockSize = {
    guard let size = BlockSize(byteCount: 512) else { fatalError("512 is a block size") }
    return size
  }()
}

extension StoreKind<MemoryExtentStore> {
  // One block more, since block 0 is never used.
  static let memory = StoreKind("memory") {
    try MemoryExtentStore(blockSize: .small, blockCount: $0 + 1)
  }

  /// Gives the memory of free blocks back early.
  static let frugalMemory = StoreKind("memory that keeps few free blocks") {
    try MemoryExtentStore(blockSize: .small, blockCount: $0 + 1, residentLimit: 6)
  }
}

extension StoreKind<AwkwardExtentStore<MemoryExtentStore>> {
  static func shortRuns(_ longest: UInt64) -> Self {
    StoreKind("memory in runs of up to \(longest)") {
      AwkwardExtentStore(try StoreKind<MemoryExtentStore>.memory.make($0), longestRun: longest)
    }
  }
}

extension StoreKind<ByteBackedExtentStore<MemoryByteStore>> {
  static let bytesInMemory = StoreKind("bytes in memory") {
    try ByteBackedExtentStore(MemoryByteStore(), blockSize: .small, blockCount: $0)
  }
}

extension StoreKind<MemoryBlockChainStore> {
  static let memoryChain = StoreKind("chain in memory") {
    try MemoryBlockChainStore(blockSize: .small, blockCount: $0 + 1)
  }

  static let frugalMemoryChain = StoreKind("chain in memory that keeps few free blocks") {
    try MemoryBlockChainStore(blockSize: .small, blockCount: $0 + 1, residentLimit: 0)
  }
}

/// The stores that the tests of files run on.
enum FileStores {
  typealias Kind = StoreKind<any FileStore>

  static let all: [Kind] = [memory, frugalMemory, shortRuns, bytes, chain]

  static let memory = Kind("extents in memory") { capacity in
    let store = try StoreKind<MemoryExtentStore>.memory.make(capacity)
    return COWFileStore(store, capacity: capacity) { store.freeBlockCount }
  }

  static let frugalMemory = Kind("extents in memory that keeps few free blocks") { capacity in
    let store = try StoreKind<MemoryExtentStore>.frugalMemory.make(capacity)
    return COWFileStore(store, capacity: capacity) { store.freeBlockCount }
  }

  static let shortRuns = Kind("extents in short runs") { capacity in
    let store = try StoreKind.shortRuns(2).make(capacity)
    return COWFileStore(store, capacity: capacity) { store.base.freeBlockCount }
  }

  static let bytes = Kind("extents in bytes in memory") { capacity in
    try bytes(MemoryByteStore(), capacity: capacity)
  }

  static let chain = Kind("chains in memory") { capacity in
    let store = try StoreKind.memoryChain.make(capacity)
    return PlainFileStore(BlockChainBacking(store), capacity: capacity, freeCount: { store.freeBlockCount })
  }

  /// Files over extents over the byte store `base`, which is what is there when they are opened again.
  static func bytes<Base: ByteStore>(
    _ base: Base, capacity: UInt64
  ) throws -> PlainFileStore<ExtentBacking<ByteBackedExtentStore<Base>>> {
    let store = try ByteBackedExtentStore(base, blockSize: .small, blockCount: capacity)
    return PlainFileStore(
      ExtentBacking(store), capacity: capacity, freeCount: { store.freeBlockCount },
      reopen: { try bytes(base, capacity: capacity) })
  }
}
