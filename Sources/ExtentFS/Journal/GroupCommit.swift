internal import Atomics
internal import Bytes
package import Devices

/// Makes what was written durable, with one sync for everyone who asks meanwhile.
///
/// Who comes while no sync runs leads one; who comes while one runs waits for it and, where that began too early, for the
/// next, which one of those waiting leads. A failed sync is final: nothing succeeds after it.
///
/// Locks: its own, never held together with the ring's, nor during a sync.
package final class GroupCommit: Sendable {
  private let device: any BlockDevice
  private let ring: JournalRing
  private let health: EngineHealth
  private let monitor: Monitor<State>

  private struct State {
    var isSyncing = false
    /// How many syncs began, and how many succeeded: the last one to begin is the only one that may be running.
    var begunCount: UInt64 = 0
    var completedCount: UInt64 = 0
    var durableSequence: UInt64 = 0
  }

  private let requests = ManagedAtomic<UInt64>(0)

  private enum Role { case leader, served }

  /// Makes the one group commit of `ring`, which is on `device`.
  package init(device: any BlockDevice, ring: JournalRing) {
    self.device = device
    self.ring = ring
    health = ring.health
    monitor = Monitor(rank: .groupCommit, State())
  }

  /// Returns when every change appended before the call is durable, with its data: a flush. Costs nothing where they are.
  ///
  /// - Throws: `.device` where this call's own sync failed, `.failed` for everyone else from then on.
  package func flush() throws(ExtentFSError) {
    requests.wrappingIncrement(ordering: .relaxed)
    try flush(through: ring.lastChangeSequence)
  }

  /// How many flushes were asked for.
  package var requestCount: UInt64 { requests.load(ordering: .relaxed) }

  /// Returns when every record up to the number `sequence`, which was appended, is durable, with its data.
  ///
  /// - Throws: as for `flush()`.
  package func flush(through sequence: UInt64) throws(ExtentFSError) {
    try health.requireWritable()
    try sync { $0.durableSequence >= sequence }
  }

  /// Returns when everything that was written to the device before the call is durable, journalled or not: for checkpoints.
  ///
  /// - Throws: as for `flush()`.
  package func syncAll() throws(ExtentFSError) {
    try health.requireWritable()
    var ticket: UInt64?
    try sync { state in
      // A sync that runs already began too early.
      let needed = ticket ?? state.begunCount + 1
      ticket = needed
      return state.completedCount >= needed
    }
  }

  /// How many syncs were begun.
  package var syncCount: UInt64 { monitor.wait { $0.begunCount } }

  private func sync(unless isServed: (State) -> Bool) throws(ExtentFSError) {
    let role: Role = try monitor.wait { state throws(ExtentFSError) in
      if isServed(state) { return .served }
      try health.requireWritable()
      if state.isSyncing { return nil }
      state.isSyncing = true
      state.begunCount += 1
      return .leader
    }
    guard role == .leader else { return }
    let outcome = syncDevice()
    monitor.change { state in
      state.isSyncing = false
      if case .success(let sequence) = outcome {
        state.completedCount += 1
        state.durableSequence = sequence
      }
    }
    _ = try outcome.get()
  }

  /// Syncs, and returns the number of the last record that is durable now.
  private func syncDevice() -> Result<UInt64, ExtentFSError> {
    do throws(ExtentFSError) {
      let sequence = try ring.beginSync()
      do throws(DeviceError) { try device.sync() } catch {
        health.fail(.sync, ExtentFSError(error))
        throw ExtentFSError(error)
      }
      ring.endSync(through: sequence)
      return .success(sequence)
    } catch {
      return .failure(error)
    }
  }
}
