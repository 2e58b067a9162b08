internal import Bytes
internal import Devices

/// What a store says of itself as a whole, in bytes.
package struct StoreFigures: Sendable {
  /// The length of the device.
  package var deviceByteCount: UInt64
  /// What is in use: data, nodes, and what superblocks, journal, bitmaps and checksums take.
  package var usedByteCount: UInt64
  /// The part of that which superblocks, journal, bitmaps and checksums take.
  package var fixedByteCount: UInt64
  /// What data could have now. Without a limit: what is free on the device as it is, since nobody knows how far it grows.
  package var freeByteCount: UInt64
  /// When the store was made, in seconds since 1970.
  package var createdSeconds: UInt64
  /// Of the last checkpoint.
  package var generation: UInt64
  package var featureNames: [String]
}

extension Engine {
  /// What the store says of itself as a whole, now.
  package var figures: StoreFigures {
    let superblock = self.superblock
    let shift = blockSize.shift
    let usable = geometry.usableBlockCount(inDeviceOf: space.blockCount)
    let fixed = space.blockCount.minusOrZero(usable)
    let free = options.limitByteCount == nil && device.canGrow ? space.freeBlockCount : space.availableBlockCount
    return StoreFigures(
      deviceByteCount: device.byteCount, usedByteCount: (space.usedBlockCount + fixed) << shift,
      fixedByteCount: fixed << shift, freeByteCount: free << shift, createdSeconds: superblock.createdSeconds,
      generation: superblock.generation,
      featureNames: superblock.featureNames.map(\.name))
  }
}
