internal import BlockStores
internal import Bytes

extension Volume {
  /// The most bytes that blocks in memory may take: what a process has addresses for, with room to spare.
  private static let memoryByteCountMax: UInt64 = 1 << 46

  /// Blocks beyond the volume's own: room for writes that have not replaced the old blocks yet.
  private static let spareBlockCount: UInt64 = 1 << 18

  /// Makes an empty disk in memory.
  convenience init(inMemory byteCount: UInt64, engine: MemoryEngine, gate: CallGate) throws(LacunaError) {
    guard byteCount > 0, byteCount <= UInt64(Int64.max) else {
      throw LacunaError(.invalidParameter, "a disk has from 1 to 2^63 - 1 bytes, not \(byteCount)")
    }
    let description = VolumeDescription(
      name: "memory", byteCount: byteCount, isReadOnly: false,
      summary: "\(byteCount) bytes in memory, engine \(engine.rawValue)")
    do {
      self.init(description, try Self.contents(of: byteCount, engine), gate: gate)
    } catch {
      throw LacunaError(error).inVolume(description.name)
    }
  }

  private static func contents(of byteCount: UInt64, _ engine: MemoryEngine) throws(StoreError) -> VolumeContents {
    let inode = Inode(rawValue: 1)
    let blockSize = BlockSize.standard
    // Twice the volume, so that each block, also one of reserved zeroes, finds room for its next contents.
    let wanted = 2 * blockSize.blocks(toHold: byteCount) + spareBlockCount
    let blockCount = min(wanted, memoryByteCountMax >> blockSize.shift)
    switch engine {
    case .extent:
      let file = try ExtentFile(
        MemoryExtentStore(blockSize: blockSize, blockCount: blockCount), inode: inode, overwritesInPlace: true)
      try file.truncate(to: byteCount)
      return .extents(file)
    case .chain:
      let file = try BlockChainFile(
        MemoryBlockChainStore(blockSize: blockSize, blockCount: blockCount), inode: inode, overwritesInPlace: true)
      try file.truncate(to: byteCount)
      return .chain(file)
    case .bytes:
      let store = MemoryByteStore()
      try store.truncate(inode, to: byteCount)
      return .bytes(store, inode)
    }
  }
}
