internal import Bytes
internal import Extents
internal import Glibc

/// Blocks that were taken for a write.
struct TakenRun {
  var run: PhysicalRun
  /// The logical blocks whose promise they were taken from; nil for none.
  var promise: Range<UInt64>?
}

/// Finds blocks for data where a volume has taken none beforehand, also where the store is full and some can be made free.
///
/// Thread safety: any thread; without any lock held, since it may run a checkpoint.
struct DataAllocator: Sendable {
  private let checkpoints: CheckpointRunner
  private let space: SpaceMap
  private let volumes: VolumeTable
  private let retired: RetiredBlocks

  init(_ checkpoints: CheckpointRunner) {
    self.checkpoints = checkpoints
    (space, volumes, retired) = (checkpoints.space, checkpoints.volumes, checkpoints.retired)
  }

  /// How often a writer that finds the store full looks again, at least.
  private static var fullRetryCount: Int { 4 }
  /// How long it goes on looking while blocks that are free are still being read: whoever reads them may have to wait for a
  /// processor.
  private static var fullPatience: Duration { .seconds(1) }

  /// Takes blocks together for data of a volume: for the first of its `blocks`, up to `recordBlocksMax` of them. Where all that
  /// is free is promised, it looks whether to these. Where there are none, it waits for a checkpoint, which frees what was
  /// overwritten, and looks again; more than once, since others take blocks too, and since what is free must first be let go
  /// of by those who are reading it.
  ///
  /// The caller calls `DiskVolume.endPromise` when it has mapped the blocks, or has given them back.
  func allocate(for volume: OpenVolume, at blocks: Range<UInt64>) throws(ExtentFSError) -> TakenRun {
    let count = min(blocks.length, JournalRing.recordBlocksMax)
    var deadline: ContinuousClock.Instant?
    var attempt = 0
    while true {
      do {
        return TakenRun(run: try volume.allocationWindow.take(count))
      } catch {
        guard error.code == .outOfSpace else { throw error }
      }
      if let taken = try takePromised(count, for: volume, at: blocks) { return taken }
      // What other volumes have taken beforehand is free as well.
      for other in volumes.all { try other.allocationWindow.returnRest() }
      let now = ContinuousClock.now
      let end = deadline ?? now + Self.fullPatience
      deadline = end
      let isHeld = !retired.isEmpty || volume.hasPromisesInFlight
      guard attempt < Self.fullRetryCount || isHeld && now < end else {
        throw ExtentFSError(.outOfSpace, "volume '\(volume.name)': the store is full").naming(volume: volume.name)
      }
      try checkpoints.run()
      if attempt > 0 { usleep(1000) }
      attempt += 1
    }
  }

  /// Takes up to `count` blocks that were promised to the first of `blocks`, or to the volume; nil where none were, or others hold them for now.
  ///
  /// This reads the tree, which no other write of whole blocks does; but without it, this one would wait for a checkpoint.
  private func takePromised(
    _ count: UInt64, for volume: OpenVolume, at blocks: Range<UInt64>
  ) throws(ExtentFSError) -> TakenRun? {
    try volume.withView { view throws(ExtentFSError) in
      // What a throwaway has reserved is promised to its origin.
      guard view.isJournaled else { return nil }
      let start = blocks.lowerBound
      let reserved = try view.reservedCount(startingAt: start..<start + count, checkpoints.nodes)
      guard let promise = volume.beginPromise(at: start, count: count, reserved: reserved, asIn: view) else {
        return nil
      }
      do throws(ExtentFSError) {
        let run = try space.allocate(upTo: promise.length, near: nil, purpose: .promised)
        return TakenRun(run: run, promise: promise)
      } catch {
        volume.endPromise(promise)
        guard error.code == .outOfSpace else { throw error }
        return nil
      }
    }
  }
}
