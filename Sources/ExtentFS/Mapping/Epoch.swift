internal import Bytes
internal import Extents

/// A span of time between two checkpoints, which readers hold through their views, and the blocks that its end set free.
///
/// Epochs form a chain from older to newer, each holding its successor. When a checkpoint is durable, the blocks that it
/// took out of use are retired with the epoch that ends. An epoch goes when no view holds it and no older epoch is left;
/// only then may its blocks be used again: every view that could map one of them belongs to it or to an older one.
final class Epoch: @unchecked Sendable {
  // Sendable because `retired` and `successor` are written once, by the checkpoint that ends the epoch, and read when the
  // last reference is gone.
  private let free: @Sendable ([PhysicalRun]) -> Void
  private var retired: [PhysicalRun] = []
  private var successor: Epoch?

  /// An epoch without a predecessor that hands its retired blocks to `free`, on whichever thread lets go of it last.
  init(free: @escaping @Sendable ([PhysicalRun]) -> Void) { self.free = free }

  /// Ends this epoch: `runs` may be used again when nobody can see them any more. Called once.
  func end(retiring runs: [PhysicalRun]) -> Epoch {
    let next = Epoch(free: free)
    retired = runs
    successor = next
    return next
  }

  deinit {
    if !retired.isEmpty { free(retired) }
    // A loop, since the release of a long chain by recursion would use up the stack.
    var next = successor.take()
    while isKnownUniquelyReferenced(&next) {
      next = next?.successor.take()
    }
  }
}
