internal import Atomics
internal import Extents

/// Counts the blocks that checkpoints took out of use and that readers of older views or catalogs still keep.
///
/// Thread safety: any thread; no lock.
final class RetiredBlocks: Sendable {
  private let count = ManagedAtomic<UInt64>(0)

  /// Whether any block waits for its readers.
  var isEmpty: Bool { count.load(ordering: .relaxed) == 0 }

  /// The first epoch of an open store: what is retired with it, or with a later one, becomes free in `space` when nobody sees it.
  func firstEpoch(freeing space: SpaceMap, _ health: EngineHealth, _ trust: JournalTrust) -> Epoch {
    Epoch { runs in
      self.count.wrappingDecrement(by: Self.blockCount(runs), ordering: .relaxed)
      do throws(ExtentFSError) {
        for run in runs { try space.free(run) }
      } catch {
        // Nothing is lost yet, and nothing more is written.
        health.fail(.freeing, trust.blame(error))
      }
    }
  }

  /// `runs` are about to be retired with an epoch.
  func add(_ runs: [PhysicalRun]) { count.wrappingIncrement(by: Self.blockCount(runs), ordering: .relaxed) }

  private static func blockCount(_ runs: [PhysicalRun]) -> UInt64 { runs.reduce(0) { $0 &+ $1.count } }
}
