internal import Bytes

extension Engine {
  /// Makes everything durable that completed before this call, on all volumes: at most one sync of the device.
  package func commit() throws(ExtentFSError) { try commits.commit() }

  /// Waits until the journal has room: runs a checkpoint, unless one that another thread ran has made room meanwhile.
  func waitForJournalRoom() throws(ExtentFSError) {
    try checkpoint { self.journal.usedByteCount > self.journal.byteCount / 2 }
  }

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
    for volume in letGoOfVolumes() { try volume.openRun.returnRest() }
    if let failure { throw failure }
  }

  /// Volumes and engine refer to each other; this ends that.
  @discardableResult
  package func letGoOfVolumes() -> [DiskVolume] {
    state.withLock { state in
      defer { state.volumes = [:] }
      return state.volumes.values.map(\.volume)
    }
  }
}
