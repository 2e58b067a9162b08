package import BlockStores
internal import Bytes
package import Devices

/// A run of free blocks that one volume has taken beforehand, so that its writers do not meet other volumes' at the
/// space map, and so that what it writes one after the other lies together.
///
/// The run is 256 KiB at first, and each next one twice as long up to 4 MiB; less where free space is short. Its rest is
/// in use as far as the space map knows, until `returnRest`.
///
/// Thread safety: any thread. `take` costs one lock while the run lasts; the thread that finds it empty gets the next
/// one from the space map, and the volume's other writers wait for that. Lock order: this lock, then the space map's.
package final class OpenRun<Device: BlockDevice>: Sendable {
  private struct State {
    /// The first block that is left.
    var next: UInt64 = 0
    /// The block after the last one that is left.
    var end: UInt64 = 0
    /// How long the next run is to be.
    var length: UInt64
  }

  private let map: SpaceMap<Device>
  private let state: Locked<State>
  private let longest: UInt64

  /// A run of `map` that is empty.
  package init(_ map: SpaceMap<Device>) {
    self.map = map
    let shift = map.geometry.blockSize.shift
    longest = max((1 << 22) >> shift, 1)
    state = Locked(State(length: max((1 << 18) >> shift, 1)))
  }

  /// Takes up to `count` blocks together, at least one.
  ///
  /// They come from the run; from `near` on, or elsewhere, where the run is empty or `count` is as much as a whole one.
  ///
  /// - Throws: as `SpaceMap.allocate`.
  package func take(_ count: UInt64, near: UInt64? = nil) throws(ExtentFSError) -> PhysicalRun {
    try state.withLock { state throws(ExtentFSError) in
      if state.next == state.end {
        if count >= state.length { return try map.allocate(upTo: count, near: near ?? state.next, purpose: .data) }
        try refill(&state, count, near: near)
      } else if count >= state.length, count > state.end - state.next {
        return try map.allocate(upTo: count, near: near, purpose: .data)
      }
      let run = PhysicalRun(block: state.next, count: min(max(count, 1), state.end - state.next))
      state.next += run.count
      return run
    }
  }

  private func refill(_ state: inout State, _ count: UInt64, near: UInt64?) throws(ExtentFSError) {
    // Many volumes must not keep the last blocks from each other.
    let share = map.freeBlockCount / 64
    let run = try map.allocate(
      upTo: max(count, min(state.length, share), 1), near: near ?? state.end, purpose: .data)
    state.next = run.block
    state.end = run.block + run.count
    state.length = min(state.length * 2, longest)
  }

  /// Gives the rest of the run back: when the volume closes, and when space is short.
  package func returnRest() throws(ExtentFSError) {
    try state.withLock { state throws(ExtentFSError) in
      guard state.next < state.end else { return }
      let rest = PhysicalRun(block: state.next, count: state.end - state.next)
      state.end = state.next
      try map.returnUnused(rest)
    }
  }
}
