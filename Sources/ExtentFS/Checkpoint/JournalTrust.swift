internal import Atomics

/// Whether a contradiction in the space map may come from the device: records of a forged journal, or of a damaged one, may name a block
/// twice. Else the fault is in this program.
///
/// Thread safety: any thread; `set` is for the opening.
final class JournalTrust: Sendable {
  /// False while an opening merges the journal.
  private let isTrusted = ManagedAtomic(true)
  private let damage: DamageRegister

  init(_ damage: DamageRegister) { self.damage = damage }

  func set(_ isTrusted: Bool) { self.isTrusted.store(isTrusted, ordering: .relaxed) }

  /// `error`, as `damaged` where it may come from the device.
  func blame(_ error: ExtentFSError) -> ExtentFSError {
    error.blamed(onJournal: !isTrusted.load(ordering: .relaxed) || !damage.all.isEmpty)
  }
}
