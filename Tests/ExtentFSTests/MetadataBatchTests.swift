import Bytes
import Devices
import Extents
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What a checkpoint has made and not written yet.
@Suite struct MetadataBatchTests {
  private static let blockSize = 1024

  /// Writes the nodes of a tree into a batch.
  private final class Writer: TreeWriter {
    let generation: UInt64 = 1
    let batch: MetadataBatch
    private(set) var blocks: Set<UInt64> = []

    init(_ batch: MetadataBatch) { self.batch = batch }

    func allocateBlock() throws(ExtentFSError) -> UInt64 {
      let block = UInt64(blocks.count + 1)
      blocks.insert(block)
      return block
    }
    func write(_ node: Node) throws(ExtentFSError) { try batch.add(node) }
    func freeNode(_ block: UInt64) throws(ExtentFSError) {}
    func freeData(_ run: PhysicalRun) throws(ExtentFSError) {}
  }

  private func nodes(_ device: any BlockDevice, byteLimit: Int = 0) throws -> NodeCache {
    NodeCache(device: device, blockSize: try #require(BlockSize(byteCount: Self.blockSize)), byteLimit: byteLimit)
  }

  private func bigTree(_ cache: NodeCache, _ writer: Writer) throws -> TreeRoot {
    let edits = (0..<4000 as Range<UInt64>).map { ExtentEdit(2 * $0..<2 * $0 + 1, .physical(5 + 2 * $0)) }
    return try TreeMerge(cache: cache, writer: writer).mergeExtents(root: .empty, owner: 7, edits: edits).root
  }

  private func isWhole(_ root: TreeRoot, in cache: NodeCache) throws -> Bool {
    var count = 0
    try cache.reader(root, .extents, owner: 7).forEach { _ in
      count += 1
      return true
    }
    return count == 4000
  }

  @Test func `nodes that wait are found, in a cache that keeps none, and written in one call`() throws {
    let device = FaultyDevice(try MemoryDevice(byteCount: 1 << 20))
    let cache = try nodes(device)
    let writer = Writer(MetadataBatch(cache))
    let root = try bigTree(cache, writer)
    #expect(try isWhole(root, in: cache))
    #expect(device.counts.total == 0)
    try writer.batch.flush()
    #expect(device.counts.writes == 1 && device.counts.bytesWritten == UInt64(writer.blocks.count * Self.blockSize))
    #expect(try isWhole(root, in: cache))
    #expect(try isWhole(root, in: nodes(device)))
    try writer.batch.flush()
    #expect(device.counts.writes == 1)
  }

  @Test func `no more waits than the bound`() throws {
    let device = FaultyDevice(try MemoryDevice(byteCount: 1 << 20))
    let cache = try nodes(device)
    let writer = Writer(MetadataBatch(cache, byteCountMax: 10 * Self.blockSize))
    let root = try bigTree(cache, writer)
    #expect(device.counts.writes == writer.blocks.count / 10)
    #expect(try isWhole(root, in: cache))
    try writer.batch.flush()
    #expect(try isWhole(root, in: nodes(device)))
  }

  @Test func `what could not be written is not found any more, and is not written later`() throws {
    let device = FaultyDevice(try MemoryDevice(byteCount: 1 << 20))
    device.inject(DeviceFault(.write, call: 0, errno: ENOSPC))
    let cache = try nodes(device)
    let writer = Writer(MetadataBatch(cache))
    let root = try bigTree(cache, writer)
    let error = #expect(throws: ExtentFSError.self) { try writer.batch.flush() }
    #expect(error?.isLackOfSpace == true)
    #expect(throws: ExtentFSError.self) { try isWhole(root, in: cache) }
    try writer.batch.flush()
    #expect(device.counts.writes == 1)
  }

  @Test func `a batch that is forgotten leaves nothing in the cache`() throws {
    let device = FaultyDevice(try MemoryDevice(byteCount: 1 << 20))
    let cache = try nodes(device, byteLimit: 1 << 20)
    var writer: Writer? = Writer(MetadataBatch(cache))
    let root = try bigTree(cache, #require(writer))
    #expect(cache.nodeCount == 0)
    writer = nil
    #expect(throws: ExtentFSError.self) { try isWhole(root, in: cache) }
    #expect(device.counts.writes == 0)
  }

  @Test func `a block that is added twice has what was added last`() throws {
    let device = FaultyDevice(try MemoryDevice(byteCount: 1 << 20))
    let batch = MetadataBatch(try nodes(device))
    for byte in [1, 2] as [UInt8] {
      _ = try batch.addBlock(3) { $0.initializeMemory(as: UInt8.self, repeating: byte) }
    }
    try batch.flush()
    #expect(device.counts.writes == 2)
    var bytes = [UInt8](repeating: 0, count: Self.blockSize)
    try bytes.withUnsafeMutableBytes { try device.base.read(into: $0, at: 3 * UInt64(Self.blockSize)) }
    #expect(bytes == [UInt8](repeating: 2, count: Self.blockSize))
  }
}
