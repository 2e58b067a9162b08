internal import Bytes
internal import Devices

extension Engine {
  /// Dead blocks, waiting for a checkpoint, that are reason enough for one.
  private static var supersededCountMax: UInt64 { 65_536 }

  /// Whether writers should soon find more room in the journal: they wait only where it is full.
  private var isJournalHalfFull: Bool { journal.usedByteCount > journal.byteCount / 2 }

  /// Starts the thread that runs checkpoints and gives freed space back to the host, until `close`. Not before a fork.
  package func startCheckpoints() throws(ExtentFSError) {
    try checkpointer.start(seconds: max(options.checkpointSeconds, 1)) { timeHasPassed in
      do throws(ExtentFSError) {
        try self.checkpointInBackground(timeHasPassed: timeHasPassed)
        try self.trimInBackground()
      } catch {
        // Where the store cannot go on, the journal knows why, and tells every writer (invariant 4).
      }
    }
  }

  /// Wakes the thread where there is enough for it to do.
  @inline(__always)
  func wakeCheckpointer(supersededCount: UInt64) {
    if isJournalHalfFull || supersededCount > Self.supersededCountMax { checkpointer.wake() }
  }

  private func checkpointInBackground(timeHasPassed: Bool) throws(ExtentFSError) {
    if isJournalHalfFull {
      try waitForJournalRoom()
    } else {
      let volumes = state.withLock { Array($0.volumes.values) }
      let count = volumes.reduce(0 as UInt64) { $0 + $1.writers.withLock { $0.supersededCount } }
      if timeHasPassed || count > Self.supersededCountMax { try checkpoint() }
    }
  }

  /// Gives the host back what has become free, as far as the device can.
  package func trimInBackground() throws(ExtentFSError) {
    while !checkpointer.isStopping, let run = space.nextTrim() {
      let bytes = blockSize.offset(of: run.block)..<blockSize.offset(of: run.block + run.count)
      // A device that cannot discard keeps the space, and nothing else changes.
      try? device.discard(bytes)
      try space.didTrim(run)
    }
  }
}
