internal import Extents

/// What becomes of a checkpoint that finds no room, in the store or at its host.
///
/// Until its superblock is written, nothing depends on what it wrote: the last durable superblock leads to none of that, and the
/// journal still has all that was to be merged, since its tail has not moved. So it is as if it had never begun. The changes wait
/// for the next one, and writers go on as long as the journal has room for them.
extension CheckpointRunner {
  /// Takes a checkpoint back. Any error but a lack of room is final, and so is that where something may depend on what was written: a
  /// part of the superblock, or what was carried along, for which the journal has room once.
  ///
  /// - Parameter frozen: what `freeze` returned.
  func takeBack(_ frozen: [FrozenVolume], _ writer: CheckpointWriter) throws(ExtentFSError) {
    space.didFail()
    checksums.didFail()
    do throws(ExtentFSError) {
      // Marked as written, so that the host gets them back.
      for run in writer.allocated { try space.free(run) }
    } catch {
      health.fail(.undo, error)
      throw error
    }
    for part in frozen { part.volume.thaw(part) }
    space.thawPromises()
  }
}
