import Bytes
import Devices
import Extents
import LacunaTestSupport

@testable import ExtentFS

/// A space map and a checksum table on a device in memory, with a dictionary in place of the space tree.
final class SpaceFixture: Sendable {
  /// What survives a crash: the device, and what the last superblock says.
  struct Superblock {
    var tree: [UInt64: GroupRecord] = [:]
    var blockCount: UInt64
    var usedBlockCount: UInt64 = 0
  }

  static let blockSize = 1024
  let geometry: StoreGeometry
  let device: MemoryDevice
  let durable: Locked<Superblock>
  /// What the running checkpoint has changed in the tree.
  private let staged = Locked<[UInt64: GroupRecord]>([:])
  let space: SpaceMap
  let checksums: ChecksumTable

  /// A new store of `blockCount` blocks that may grow to `limit`.
  convenience init(blockCount: UInt64, limit: UInt64? = nil) throws {
    let size = UInt64(Self.blockSize)
    let device = try MemoryDevice(
      byteCount: blockCount * size, maximumByteCount: Swift.max(limit ?? blockCount, blockCount) * size)
    try self.init(device, Superblock(blockCount: blockCount), limit: limit)
  }

  private init(_ device: MemoryDevice, _ superblock: Superblock, limit: UInt64?) throws {
    guard let blockSize = BlockSize(byteCount: Self.blockSize) else { throw CheckFailure("no block size") }
    geometry = try StoreGeometry(blockSize: blockSize, journalByteCount: 65536)
    self.device = device
    let durable = Locked(superblock)
    self.durable = durable
    space = try SpaceMap(
      device: device, geometry: geometry, blockCount: superblock.blockCount,
      usedBlockCount: superblock.usedBlockCount, growingUpTo: limit,
      records: GroupRecords { group in durable.withLock { $0.tree[group] } })
    checksums = ChecksumTable(space: space, byteBudget: 0)
  }

  /// The store as it is after a crash and an opening.
  func reopened(limit: UInt64? = nil) throws -> SpaceFixture {
    try SpaceFixture(device, durable.withLock { $0 }, limit: limit)
  }

  /// Writes all of a checkpoint but its superblock.
  func writeCheckpoint() throws {
    let batch = self.batch
    try checksums.writeDirty(batch)
    while true {
      let records = try space.writeDirty(batch)
      if records.isEmpty { return try batch.flush() }
      staged.withLock { for (group, record) in records { $0[group] = record } }
    }
  }

  /// Runs a checkpoint to its end.
  func checkpoint() throws {
    try writeCheckpoint()
    durable.withLock { durable in
      staged.withLock {
        durable.tree.merge($0) { $1 }
        $0 = [:]
      }
      durable.blockCount = space.blockCount
      durable.usedBlockCount = space.usedBlockCount
    }
    space.didCommit()
    checksums.didCommit()
  }

  /// A new batch for the device.
  var batch: MetadataBatch {
    MetadataBatch(NodeCache(device: device, blockSize: geometry.blockSize, byteLimit: 0))
  }

  func failCheckpoint() {
    staged.withLock { $0 = [:] }
    space.didFail()
    checksums.didFail()
  }

  /// The first block of group 0 for data.
  var firstBlock: UInt64 { geometry.headBlockCount + StoreGeometry.metadataBlocksPerGroup }

  /// A device with room for `count` blocks of data in one group.
  static func blockCount(forData count: UInt64) -> UInt64 { 192 + 66 + count }
}

/// The code of the error that `body` throws.
func errorCode(_ body: () throws -> Void) -> ExtentFSError.Code? {
  do {
    try body()
    return nil
  } catch { return (error as? ExtentFSError)?.code }
}
