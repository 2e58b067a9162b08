package import Logging

/// How an engine behaves; nothing of it is stored.
package struct EngineOptions: Sendable {
  /// Memory for nodes of trees and for checksums, in bytes.
  package var cacheByteCount: UInt64 = 64 << 20
  /// The length in bytes that the device is not grown beyond while it is open; nil for none but the store's own. Where there are
  /// both, the smaller one holds.
  package var limitByteCount: UInt64?
  /// Whether whole blocks of zeroes that are written become holes.
  package var detectsZeroes = true
  /// The longest time between two checkpoints while there is something to merge, in seconds.
  package var checkpointSeconds: UInt32 = 60
  /// How many nodes one step of a deletion visits: by default 4 MiB of them. More than a tree is high.
  package var deletionStepNodeCount = 1024
  /// Whether to go on from the older superblock where the other one is damaged and may have been newer, also where something of what
  /// the older one leads to is damaged.
  package var acceptsOlderSuperblock = false
  /// Gets what no caller is told: the result of recovery, damage, the first failure, a lack of room, slow checkpoints, and space that
  /// the device does not take back; see ``EngineLog``.
  package var logger = Logger(label: "lacuna.engine", factory: { _ in SwiftLogNoOpLogHandler() })
  /// A checkpoint that takes longer is logged.
  package var slowCheckpointDuration: Duration = .seconds(5)
  /// Whether recovery holds data that no sync covered against its checksums. False is for tests of the tests alone: it
  /// trusts what may never have reached the device.
  package var verifiesRecoveredData = true

  /// The defaults.
  package init() {}
}

extension EngineOptions {
  /// Up to how many blocks a device with the store of `superblock` grows.
  func limitBlockCount(of superblock: Superblock) -> UInt64 {
    let own = superblock.limitByteCount == 0 ? UInt64.max : superblock.limitByteCount
    return min(own, limitByteCount ?? .max, UInt64(Int64.max)) >> superblock.geometry.blockSize.shift
  }
}
