internal import Bytes

extension Engine {
  /// Makes everything durable that completed before this call, on all volumes: at most one sync of the device.
  package func flush() throws(ExtentFSError) { try commits.flush() }

  /// Waits until the journal has room: runs a checkpoint, unless one that another thread ran has made room meanwhile.
  func waitForJournalRoom() throws(ExtentFSError) {
    try checkpoints.run(if: { checkpoints.isJournalHalfFull })
  }

  /// Makes room for more changes: raises the reserve, or where there is too little free for that, runs a checkpoint. To be
  /// called where the reserve is used up, without any lock.
  func extendReserve() throws(ExtentFSError) {
    try health.requireWritable()
    if try !reserve.extend() { try checkpoints.run(if: { reserve.isUsedUp }) }
  }

  /// Merges what changed since the last checkpoint into the trees, and makes it durable; see ``CheckpointRunner``.
  ///
  /// - Throws: what went wrong; then the store refuses writes until it is opened again (invariant 4), unless what was lacking is
  ///   room: then the checkpoint has not been, and is tried again later.
  package func checkpoint() throws(ExtentFSError) { try checkpoints.run() }

  /// Why what was to be merged waits for room; nil where nothing does.
  package var lackOfRoom: ExtentFSError? { checkpoints.lackOfRoom }

  /// Ends the engine: merges what is left. No other call may follow, nor be running.
  package func close() throws(ExtentFSError) {
    defer { log.send() }
    checkpointer.stop()
    var failure: ExtentFSError?
    // One that may only be read has nothing to merge.
    if case .readOnly = health.mode {
    } else {
      do throws(ExtentFSError) { try checkpoint() } catch { failure = error }
    }
    for volume in volumes.removeAll() { try volume.allocationWindow.returnRest() }
    if let failure { throw failure }
  }
}
