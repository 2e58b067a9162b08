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
