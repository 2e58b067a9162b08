internal import Bytes

/// How many blocks reserved zeroes are promised.
struct Promises {
  /// What the trees of the last checkpoint have: exact.
  var merged: UInt64 = 0
  /// What the records that the running checkpoint merges promised.
  var frozen: UInt64 = 0
  /// What records since then promised. Each counts in full, though some of its blocks may have been promised before, which only
  /// the next merge finds out; or, where there is no room for that, with the blocks that were holes before it: the others
  /// were promised already, or held data, and then give back as many blocks as they are promised, at the next checkpoint.
  var active: UInt64 = 0

  /// At most `ExtentRecord.blockLimit`, as each of its parts.
  var sum: UInt64 { min(merged + frozen + active, ExtentRecord.blockLimit) }
}

extension SpaceMap {
  /// Promises `count` more blocks; false where there is no room for them that is not taken or promised already. Nothing is
  /// too much for a store without a limit: its host is the one to say. It counts them all the same, since it may get a limit.
  ///
  /// The caller publishes a mapping that has them, or calls `takeBack`, before `freezePromises` can be called.
  package func promise(_ count: UInt64) -> Bool {
    state.withLock { state in
      guard count > 0 else { return true }
      let (sum, overflow) = state.promises.sum.addingReportingOverflow(count)
      let isPossible = !overflow && sum < ExtentRecord.blockLimit
      guard state.isUnlimited || isPossible && state.hasRoom(forPromises: sum, reserve: state.reserve) else {
        return false
      }
      state.promises.active = min(state.promises.active &+ min(count, ExtentRecord.blockLimit), ExtentRecord.blockLimit)
      return true
    }
  }

  /// Takes a promise back that came to nothing.
  package func takeBack(_ count: UInt64) {
    state.withLock { $0.promises.active = $0.promises.active.saturatingSubtract(count) }
  }

  /// A checkpoint begins: what was promised until now is in what it merges.
  package func freezePromises() {
    state.withLock { state in
      state.promises.frozen = min(state.promises.frozen + state.promises.active, ExtentRecord.blockLimit)
      state.promises.active = 0
    }
  }

  /// A checkpoint is durable whose trees have `change` more reserved blocks than those before.
  package func didMergePromises(_ change: Int64) {
    state.withLock { state in
      state.promises.merged =
        change < 0
        ? state.promises.merged.saturatingSubtract(change.magnitude)
        : min(state.promises.merged + change.magnitude, ExtentRecord.blockLimit)
      state.promises.frozen = 0
    }
  }

  /// The running checkpoint comes to nothing: what it was to merge waits for the next one.
  func thawPromises() {
    state.withLock { state in
      state.promises.active += state.promises.frozen
      state.promises.frozen = 0
    }
  }

  /// How many blocks are promised; after a checkpoint that nothing ran beside, how many the trees have as reserved.
  package var promisedBlockCount: UInt64 { state.withLock { $0.promises.sum } }

  /// What came of an attempt to raise the reserve.
  enum ReserveChange {
    case raised
    /// The blocks are in use or promised, and the device cannot grow so far.
    case noRoom
    /// The device has to grow until so many blocks are free.
    case deviceIsShort(blockCount: UInt64)
  }

  /// Keeps `blockCount` blocks from data, at least, where so many are free. Never waits for the device.
  func raiseReserve(to blockCount: UInt64) -> ReserveChange {
    state.withLock { state in
      guard state.hasRoom(forPromises: state.promises.sum, reserve: blockCount) else { return .noRoom }
      guard state.freeCount >= blockCount else { return .deviceIsShort(blockCount: blockCount) }
      state.reserve = Swift.max(state.reserve, blockCount)
      return .raised
    }
  }

  /// Makes the device longer, unless `blockCount` blocks are free already; false where it cannot be. To be called without any lock that
  /// writers need.
  func grow(unlessFree blockCount: UInt64) throws(ExtentFSError) -> Bool {
    try slowPath.withLock { () throws(ExtentFSError) in
      // Another thread may have been here first.
      if state.withLock({ $0.freeCount >= blockCount }) { return true }
      return try grow()
    }
  }
}

extension SpaceState {
  /// How many blocks may be taken for `purpose`, as long as the device does not grow.
  func room(for purpose: SpacePurpose) -> UInt64 {
    switch purpose {
    case .metadata: freeCount
    case .promised: freeCount.saturatingSubtract(reserve)
    case .data: min(freeCount.saturatingSubtract(reserve), unpromisedCount)
    }
  }

  /// How many blocks are neither taken, nor kept, nor promised, those included by which the device can grow.
  var unpromisedCount: UInt64 {
    isUnlimited
      ? .max : (freeCount + growableCount).saturatingSubtract(reserve + Self.cost(promises.sum, entriesPerNode))
  }

  fileprivate func hasRoom(forPromises count: UInt64, reserve: UInt64) -> Bool {
    isUnlimited || freeCount + growableCount >= reserve + Self.cost(count, entriesPerNode)
  }

  /// What `count` promised blocks cost in all.
  ///
  /// Besides themselves, the nodes that their mapping may need when they are written one by one, each where nothing next to it
  /// is: as many extents as blocks in the end, half of them already when half the blocks are written. A node more is one block
  /// taken, and two more that the checkpoint's reserve grows by; so 3 for each `entriesPerNode` extents, and twice that for
  /// the extents which come early.
  private static func cost(_ count: UInt64, _ entriesPerNode: UInt64) -> UInt64 {
    // Fits: a count is at most 2^62, and a leaf has 13 extents at least.
    count == 0 ? 0 : count + 6 * (count / entriesPerNode + 1)
  }
}
