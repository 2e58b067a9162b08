internal import Atomics

/// Counts the changes of mappings since the store was opened.
///
/// Thread safety: any thread; no lock.
final class EditCounter: Sendable {
  private let edits = ManagedAtomic<UInt64>(0)

  /// How many there were.
  var value: UInt64 {
    // Orders nothing: a few changes too many or too few do no harm to those who ask.
    edits.load(ordering: .relaxed)
  }

  /// Counts a change of `blockCount` blocks, which is one extent, or several where it is longer than one can be.
  @inline(__always)
  func count(_ blockCount: UInt64) { edits.wrappingIncrement(by: 1 + blockCount >> 32, ordering: .relaxed) }
}
