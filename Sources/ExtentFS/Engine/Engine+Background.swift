internal import Bytes
internal import Logging

/// When the thread in the background has something to do.
///
/// A checkpoint is worth its two syncs when the journal fills, when blocks wait to be free that are a good part of what is
/// used, when nobody has changed anything for a moment and some blocks wait, and when the time between two has passed. The
/// host gets back what is free when nobody has changed anything for a moment; before that only what is free in excess, and
/// only in large pieces, since what is about to be written again is cheapest where the kernel still has it in memory.
extension Engine {
  /// How long nobody may have changed anything for the store to be quiet, in milliseconds.
  private static var quietMilliseconds: UInt32 { 100 }
  /// What is worth a checkpoint of a quiet store, in bytes.
  private static var quietDeadByteCountMin: UInt64 { 4 << 20 }

  /// Starts the thread that runs checkpoints and gives freed space back to the host, until `close`. Not before a fork.
  package func startCheckpoints() throws(ExtentFSError) {
    // The thread alone takes this lock, which no one else waits for.
    let rhythm = Locked(
      rank: .background, Rhythm(seconds: min(max(options.checkpointSeconds, 1), UInt32.max / 1000)))
    log.setSender { [checkpointer] in checkpointer.wake() }
    try checkpointer.start(Checkpointer.Sleep(milliseconds: 0, isDeep: true)) {
      self.log.send()
      return rhythm.withLock { rhythm in
        do throws(ExtentFSError) {
          return try self.lookForWork(&rhythm)
        } catch {
          if error.isLackOfSpace, self.health.isWritable { return self.waitForRoom(&rhythm, error) }
          // Where the store cannot go on, the journal knows why, and tells every writer (invariant 4).
          return Checkpointer.Sleep(milliseconds: rhythm.seconds * 1000, isDeep: false)
        }
      }
    }
  }

  /// Starts a thread that does no more than to log, for an engine that only reads, until `close`. Not before a fork.
  package func startLog() throws(ExtentFSError) {
    log.setSender { [checkpointer] in checkpointer.wake() }
    let sleep = Checkpointer.Sleep(milliseconds: 3_600_000, isDeep: false)
    try checkpointer.start(sleep) {
      self.log.send()
      return sleep
    }
  }

  /// What the thread remembers from one look to the next.
  private struct Rhythm {
    /// The longest time between two checkpoints, short enough to be counted in milliseconds.
    let seconds: UInt32
    /// What had changed at the last look; nil before the first.
    var activity: StoreActivity?
    var lastCheckpoint = ContinuousClock.now
    /// Whether the device tells, as far as one knows, what the host holds.
    var canReclaim = true
    /// When work that found no room is tried again; nil where the last found some.
    var nextAttempt: ContinuousClock.Instant?
  }

  /// How long work that found no room is left alone, in milliseconds.
  private static var roomPauseMilliseconds: UInt32 { 1000 }

  /// Work found no room. What is free in the store may be what the host lacks; then one waits a little.
  private func waitForRoom(_ rhythm: inout Rhythm, _ error: ExtentFSError) -> Checkpointer.Sleep {
    if rhythm.nextAttempt == nil {
      log.write(
        .warning, "there is no room to merge what was written: \(error); it is safe in the journal, and tried again",
        [(.error, "\(error)")])
    }
    // Where that fails, the journal knows why.
    try? trim(leaving: 0)
    rhythm.nextAttempt = .now + .milliseconds(Int64(Self.roomPauseMilliseconds))
    return Checkpointer.Sleep(milliseconds: Self.roomPauseMilliseconds, isDeep: false)
  }

  /// How many changes may wait for a checkpoint: what the journal has room for, which changes of throwaways do not fill. Fewer
  /// where blocks are shared: each may then bring about as many changes of counts as a leaf has extents.
  private var pendingEditCountMax: UInt64 {
    reserve.isSharing ? Self.sharingEditCountMax : max(journal.byteCount / 128, Self.sharingEditCountMax)
  }
  private static var sharingEditCountMax: UInt64 { 32768 }

  /// Tells the thread of a change, after which up to `deadBlockCount` blocks of one volume wait to be free.
  @inline(__always)
  func noteChange(deadBlockCount: UInt64) {
    checkpointer.noteChange(
      isUrgent: checkpoints.isUrgent(deadBlockCount: deadBlockCount))
  }

  /// Does what there is to do, and says when to look again.
  private func lookForWork(_ rhythm: inout Rhythm) throws(ExtentFSError) -> Checkpointer.Sleep {
    if let next = rhythm.nextAttempt, ContinuousClock.now < next {
      return Checkpointer.Sleep(milliseconds: Self.roomPauseMilliseconds, isDeep: false)
    }
    let activity = checkpoints.activity
    let isQuiet = rhythm.activity == activity
    let dead = checkpoints.deadBlockCount
    let isDue = ContinuousClock.now - rhythm.lastCheckpoint >= .seconds(Int64(rhythm.seconds))
    if isDue || checkpoints.isJournalHalfFull || dead > checkpoints.deadBlockCountMax
      || reserve.pendingEditCount > pendingEditCountMax
      || isQuiet && dead << blockSize.shift >= Self.quietDeadByteCountMin || rhythm.nextAttempt != nil
    {
      try checkpoint()
      rhythm.lastCheckpoint = .now
    }
    // For the record of a flush that no other follows; where the ring is full, a checkpoint says it.
    if isQuiet, journal.hasUnrecordedCommit { _ = try journal.appendCommitMarker() }
    // What one checkpoint frees is taken again until the next one; the half more is for what changes meanwhile.
    try trim(leaving: isQuiet ? 0 : checkpoints.deadBlockCountMax / 2 * 3)
    let hasDropped = try dropDeleted()
    if rhythm.nextAttempt != nil {
      log.write(.notice, "there is room again to merge what was written")
      rhythm.nextAttempt = nil
    }
    if hasDropped {
      // Others who wait to run a checkpoint come between two steps.
      return Checkpointer.Sleep(milliseconds: 1, isDeep: false)
    }
    let isSearching = isQuiet && reclaim(&rhythm)
    rhythm.activity = checkpoints.activity
    let isAsleep = isQuiet && !isSearching && rhythm.activity == activity
    return Checkpointer.Sleep(
      milliseconds: isAsleep ? rhythm.seconds * 1000 : Self.quietMilliseconds, isDeep: isAsleep)
  }

  /// Finds some of what the host holds of free blocks, and gives it back; false where nothing is left to look at.
  private func reclaim(_ rhythm: inout Rhythm) -> Bool {
    guard rhythm.canReclaim else { return false }
    do throws(ExtentFSError) {
      return try hostSpace.reclaimSome()
    } catch {
      // Nothing depends on it, and whoever runs `lacuna trim` is told why.
      rhythm.canReclaim = false
      return false
    }
  }
}
