internal import Atomics
internal import Bytes

/// What was being done when an engine failed for good.
package enum EngineStep: String, Sendable {
  case journal = "writing the journal"
  case sync = "making data durable"
  case checkpoint = "a checkpoint"
  case undo = "undoing a checkpoint"
  case superblock = "writing the superblock"
  case freeing = "freeing blocks"
}

/// The failure after which an engine refuses changes.
package struct EngineFailure: Sendable, CustomStringConvertible {
  package var step: EngineStep
  package var cause: ExtentFSError

  package var description: String { "\(step.rawValue) failed earlier: \(cause)" }
}

/// Whether an open store may still be changed, and why not: the one place that says so.
///
/// Thread safety: any thread. Once it is not writable it stays so, until the store is opened again.
package final class EngineHealth: Sendable {
  package enum Mode: Sendable {
    case writable
    /// Opened without the right to change anything.
    case readOnly
    case failed(EngineFailure)
  }

  private let state = Locked(rank: .leaf, Mode.writable)
  /// Whether the mode is `writable`, for those who look without the lock.
  private let isOpen = ManagedAtomic(true)
  private let reportsFailure: @Sendable (EngineFailure) -> Void

  /// Begins as writable.
  ///
  /// - Parameter reportsFailure: hears of the first failure, once; on any thread, and with locks of the engine held.
  package init(reportsFailure: @escaping @Sendable (EngineFailure) -> Void = { _ in }) {
    self.reportsFailure = reportsFailure
  }

  package var mode: Mode { state.withLock { $0 } }

  /// Whether anything may still be changed.
  package var isWritable: Bool {
    // Orders nothing else: what has failed stays so.
    isOpen.load(ordering: .relaxed)
  }

  /// - Throws: `.readOnly`; `.failed` after a failure.
  @inline(__always)
  package func requireWritable() throws(ExtentFSError) {
    guard !isWritable else { return }
    try refuse()
  }

  /// Refuses every change from now on. Of several failures the first one stays.
  package func fail(_ step: EngineStep, _ cause: ExtentFSError) {
    let failure = EngineFailure(step: step, cause: cause)
    let isFirst = state.withLock { mode in
      guard case .writable = mode else { return false }
      mode = .failed(failure)
      return true
    }
    isOpen.store(false, ordering: .relaxed)
    if isFirst { reportsFailure(failure) }
  }

  /// Refuses every change from now on, since nothing may be written to the store.
  package func becomeReadOnly() {
    state.withLock { if case .writable = $0 { $0 = .readOnly } }
    isOpen.store(false, ordering: .relaxed)
  }

  @inline(never)
  private func refuse() throws(ExtentFSError) {
    switch mode {
    case .writable: break
    case .readOnly: throw ExtentFSError(.readOnly, "the store was opened for reading only")
    case .failed(let failure): throw ExtentFSError(.failed, failure.description)
    }
  }
}
