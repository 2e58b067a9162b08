internal import Atomics
internal import Bytes
internal import Extents

/// An immutable picture of one file's mapping, and the means by which freed blocks wait for their readers.
///
/// Views form a chain from older to newer: each holds its successor. When a writer publishes a new view, the blocks that
/// only the old one maps are *retired* with the old one. A view is released when no reader holds it *and* no older view
/// is left, for an older one would hold it through the chain; only then are its retired blocks freed. Every reader that
/// could have found such a block holds its own view or an older one, so no reader can meet the block's next use.
final class View<Backing: FileBacking>: AtomicReference, @unchecked Sendable {
  // Sendable because `retired` and `successor` are written once, by the writer that replaces this view, before its
  // successor can be seen, and read only when the last reference is gone.
  let map: Backing.Map
  private let reclaimer: Reclaimer<Backing>
  private var retired = PhysicalRunList()
  private var successor: View?

  init(_ map: Backing.Map, _ reclaimer: Reclaimer<Backing>) {
    self.map = map
    self.reclaimer = reclaimer
  }

  /// Marks the view as replaced by `successor`, which no longer maps `runs`. Called once, under the writers' lock.
  func retire(_ runs: PhysicalRunList, successor: View) {
    retired = runs
    self.successor = successor
  }

  deinit {
    reclaimer.free(retired)
    // A loop, since the release of a long chain by recursion would use up the stack.
    var next = successor.take()
    while isKnownUniquelyReferenced(&next) {
      next = next?.successor.take()
    }
  }
}

/// Frees the blocks of released views, and remembers a failure until a writer hears of it.
final class Reclaimer<Backing: FileBacking>: Sendable {
  private let backing: Backing
  private let failure = Locked<StoreError?>(rank: .leaf, nil)

  init(_ backing: Backing) { self.backing = backing }

  func free(_ runs: PhysicalRunList) {
    runs.forEach { run in
      do throws(StoreError) {
        try backing.free(run)
      } catch {
        failure.withLock { $0 = $0 ?? error }
      }
    }
  }

  /// Throws the first failure, again and again: blocks have leaked, and the store below is broken.
  func check() throws(StoreError) {
    if let failure = failure.withLock({ $0 }) { throw failure }
  }
}

/// A list of runs of which the first needs no heap allocation: most requests have only one.
struct PhysicalRunList: Sendable {
  private var first: PhysicalRun?
  private var rest: [PhysicalRun] = []

  var isEmpty: Bool { first == nil }

  mutating func append(_ run: PhysicalRun) {
    if var last = rest.last ?? first, last.block + last.count == run.block {
      last.count += run.count
      if rest.isEmpty { first = last } else { rest[rest.count - 1] = last }
    } else if first == nil {
      first = run
    } else {
      rest.append(run)
    }
  }

  func forEach<Failure: Error>(_ body: (PhysicalRun) throws(Failure) -> Void) throws(Failure) {
    if let first { try body(first) }
    for run in rest { try body(run) }
  }
}
