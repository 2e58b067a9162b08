internal import Atomics
internal import Bytes
internal import Extents

/// What becomes of a checkpoint that finds no room, in the store or at its host.
///
/// Until its superblock is written, nothing depends on what it wrote: the last durable superblock leads to none of that, and the
/// journal still has all that was to be merged, since its tail has not moved. So it is as if it had never begun. The changes wait
/// for the next one, and writers go on as long as the journal has room for them.
extension Engine {
  /// Takes a checkpoint back that ended with `error`. Any error but a lack of room is final, and so is that where something may depend
  /// on what was written: a part of the superblock, or what was carried along, for which the journal has room once.
  ///
  /// Under `checkpoints`, and under the `writers` of the volumes that the plan holds.
  ///
  /// - Parameter frozen: what `freeze` returned.
  func undo(
    _ frozen: [FrozenVolume], _ plan: CheckpointPlan, _ writer: CheckpointWriter,
    after error: ExtentFSError
  ) throws(ExtentFSError) {
    guard error.isLackOfSpace, !writer.hasCarried, health.isWritable else {
      return health.fail(.checkpoint, error)
    }
    space.didFail()
    checksums.didFail()
    do throws(ExtentFSError) {
      // Marked as written, so that the host gets them back.
      for run in writer.allocated { try space.reuse(run) }
    } catch {
      health.fail(.undo, error)
      throw error
    }
    let held = Set(plan.held.map(\.inode))
    for part in frozen {
      let isHeld = held.contains(part.volume.inode)
      if !isHeld { part.volume.writers.lock() }
      let replaced = thaw(part)
      if !isHeld { part.volume.writers.unlock() }
      // Leaves the lock before it goes.
      withExtendedLifetime(replaced) {}
    }
    space.thawPromises()
    shortage.withLock { $0 = error }
  }

  /// Puts what was frozen of a volume below what has changed since. Under its `writers`. Returns the view that this replaced.
  private func thaw(_ part: FrozenVolume) -> View {
    let old = part.volume.current.load(ordering: .relaxed)
    part.volume.writers.assumingLocked { writer in
      writer.takeBack(part.writer, isUnchanged: old.active.isEmpty)
      // What was frozen and has changed since is in no tree, and never will be.
      old.active.forEachRun(in: 0..<UInt64.max) { run in
        part.delta.forEachRun(in: run.positions) { writer.supersede($0) }
        return true
      }
    }
    part.volume.publish(old.replacing(active: part.delta.overlaid(by: old.active), frozen: nil))
    return old
  }

  /// Why what was to be merged waits for room; nil where nothing does.
  package var lackOfRoom: ExtentFSError? { shortage.withLock { $0 } }
}
