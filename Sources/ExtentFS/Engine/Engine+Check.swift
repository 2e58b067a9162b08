internal import Devices

extension Engine {
  /// Checks the store as of its last checkpoint, while it is in use; see ``StoreCheck`` and ``StorePoints``. What was written
  /// since is part of it where a checkpoint comes first.
  ///
  /// Nothing waits for it but, rarely, a checkpoint while the check reads one group's checksums, or all bitmaps. What volumes
  /// give up is not used again while the trees are walked, nor, later, while one piece of data is read. Any thread.
  ///
  /// - Parameters:
  ///   - readsData: also reads every block of every volume and compares its checksum.
  ///   - progress: as for `StoreCheck.run`; what it throws ends the check.
  /// - Throws: where the device cannot be read, and what `progress` throws.
  package func check(
    readsData: Bool = true, progress: @escaping (UInt64, UInt64) throws(ExtentFSError) -> Void = { _, _ in }
  ) throws(ExtentFSError) -> StoreCheckReport {
    try StoreCheck(device, points(), readsData: readsData, progress: progress).run()
  }

  /// The store's points, of which the last one taken is held. One thread uses them. `didTake` is for tests.
  func points(didTake: @escaping () -> Void = {}) -> StorePoints {
    var held: Epoch?
    return StorePoints(
      take: {
        // What was held goes outside the lock: blocks may be set free with it.
        let (catalog, epoch) = self.superblocks.catalog
        held = epoch
        didTake()
        withExtendedLifetime(held) {}
        return catalog.superblock
      },
      withoutCheckpoints: { body throws(ExtentFSError) in
        try self.checkpoints.withTurn { _ throws(ExtentFSError) in try body() }
      })
  }
}
