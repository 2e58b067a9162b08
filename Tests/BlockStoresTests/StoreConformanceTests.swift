import BlockStores
import LacunaTestSupport
import Testing

/// Every promise of every protocol, by every store.
@Suite struct StoreConformanceTests {
  static let byteStores: [ByteStoreConformance.Kind] = [
    StoreKind("memory") { _ in MemoryByteStore() },
    StoreKind("files of extents") { FilesAsByteStore(ExtentBacking(try StoreKind.memory.make($0))) },
    StoreKind("files of short runs") { FilesAsByteStore(ExtentBacking(try StoreKind.shortRuns(2).make($0))) },
    StoreKind("files of chains") { FilesAsByteStore(BlockChainBacking(try StoreKind.memoryChain.make($0))) },
    StoreKind("files of extents in bytes") { FilesAsByteStore(ExtentBacking(try StoreKind.bytesInMemory.make($0))) },
  ]

  @Test(arguments: byteStores, ByteStoreConformance.promises)
  func `a byte store keeps its promises`(kind: ByteStoreConformance.Kind, promise: Promise<ByteStoreConformance.Kind>)
    throws
  {
    try promise.test(kind)
  }

  static let blockChainStores: [BlockChainStoreConformance.Kind] = [
    StoreKind.memoryChain.map { $0 }, StoreKind.frugalMemoryChain.map { $0 },
  ]

  @Test(arguments: blockChainStores, BlockChainStoreConformance.promises)
  func `a block-chain store keeps its promises`(
    kind: BlockChainStoreConformance.Kind, promise: Promise<BlockChainStoreConformance.Kind>
  ) throws {
    try promise.test(kind)
  }

  static let extentStores: [ExtentStoreConformance.Kind] = [
    StoreKind<MemoryExtentStore>.memory.map { $0 }, StoreKind<MemoryExtentStore>.frugalMemory.map { $0 },
    StoreKind.bytesInMemory.map { $0 },
    StoreKind("bytes in files of extents") {
      // Room for the directory and the mappings beside the blocks.
      let files = FilesAsByteStore(ExtentBacking(try StoreKind<MemoryExtentStore>.memory.make($0 + 20)))
      return try ByteBackedExtentStore(files, blockSize: .small, blockCount: $0)
    },
  ]

  @Test(arguments: extentStores, ExtentStoreConformance.promises)
  func `an extent store keeps its promises`(
    kind: ExtentStoreConformance.Kind, promise: Promise<ExtentStoreConformance.Kind>
  ) throws {
    try promise.test(kind)
  }

  static let cowStores: [COWStoreConformance.Kind] = [
    StoreKind<MemoryExtentStore>.memory.map { $0 }, StoreKind<MemoryExtentStore>.frugalMemory.map { $0 },
  ]

  @Test(arguments: cowStores, COWStoreConformance.promises)
  func `a copy-on-write store keeps its promises`(
    kind: COWStoreConformance.Kind, promise: Promise<COWStoreConformance.Kind>
  ) throws {
    try promise.test(kind)
  }
}
