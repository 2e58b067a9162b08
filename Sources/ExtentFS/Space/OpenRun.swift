internal import Atomics
package import BlockStores
internal import Bytes
package import Devices

/// A run of free blocks that one volume has taken beforehand, so that its writers do not meet other volumes' at the
/// space map, and so that what it writes one after the other lies together.
///
/// The run is 256 KiB at first, and each next one twice as long up to 4 MiB; less where free space is short. Its rest is
/// in use as far as the space map knows, until `returnRest`.
///
/// Thread safety: any thread. `take` costs one compare-and-swap while the run lasts; the thread that finds it empty gets the
/// next one from the space map, and the volume's other writers wait for that. Lock order: this lock, then the space map's.
package final class OpenRun<Device: BlockDevice>: Sendable {
  private let map: SpaceMap<Device>
  /// What is left of the run.
  private let left = ManagedAtomic(RunWord.empty)
  /// How long the next run is to be. Held while a run is fetched.
  private let nextLength: Locked<UInt64>
  private let longest: UInt64

  /// A run of `map` that is empty.
  package init(_ map: SpaceMap<Device>) {
    self.map = map
    let shift = map.geometry.blockSize.shift
    longest = max((1 << 22) >> shift, 1)
    nextLength = Locked(max((1 << 18) >> shift, 1))
  }

  /// Takes up to `count` blocks together, at least one.
  ///
  /// They come from the run; from `near` on, or elsewhere, where the run is empty or `count` is as much as a whole one.
  ///
  /// - Throws: as `SpaceMap.allocate`.
  @inline(__always)
  package func take(_ count: UInt64, near: UInt64? = nil) throws(ExtentFSError) -> PhysicalRun {
    if let run = takeFromRun(count) { return run }
    return try takeFromMap(count, near: near)
  }

  /// Takes from the run; nil where it is empty, and where it would be split for what is as long as a whole one.
  @inline(__always)
  private func takeFromRun(_ count: UInt64) -> PhysicalRun? {
    var word = left.load(ordering: .relaxed)
    while word.count > 0, count <= word.count || count < longest {
      let taken = min(max(count, 1), word.count)
      // What a block held is ordered by the space map's lock, which the thread that fetched the run held before it.
      let (done, now) = left.weakCompareExchange(
        expected: word, desired: word.dropping(taken), successOrdering: .acquiringAndReleasing, failureOrdering: .relaxed)
      if done { return PhysicalRun(block: word.block, count: taken) }
      word = now
    }
    return nil
  }

  private func takeFromMap(_ count: UInt64, near: UInt64?) throws(ExtentFSError) -> PhysicalRun {
    try nextLength.withLock { length throws(ExtentFSError) in
      // Another thread may have fetched a run meanwhile.
      if let run = takeFromRun(count) { return run }
      let end = near ?? left.load(ordering: .relaxed).block
      guard count < length else { return try map.allocate(upTo: count, near: end, purpose: .data) }
      // Many volumes must not keep the last blocks from each other.
      let share = map.freeBlockCount / 64
      let run = try map.allocate(upTo: max(count, min(length, share), 1), near: end, purpose: .data)
      length = min(length * 2, longest)
      let taken = min(max(count, 1), run.count)
      let rest = PhysicalRun(block: run.block + taken, count: run.count - taken)
      if let word = RunWord(rest) {
        left.store(word, ordering: .releasing)
      } else {
        try map.returnUnused(rest)
      }
      return PhysicalRun(block: run.block, count: taken)
    }
  }

  /// Gives the rest of the run back: when the volume closes, and when space is short.
  package func returnRest() throws(ExtentFSError) {
    let word = left.exchange(.empty, ordering: .acquiringAndReleasing)
    guard word.count > 0 else { return }
    try map.returnUnused(PhysicalRun(block: word.block, count: word.count))
  }
}

/// A run of up to 65,535 blocks in one word: its first block in the upper 48 bits, how many there are in the lower 16.
private struct RunWord: RawRepresentable, AtomicValue {
  let rawValue: UInt64

  static var empty: RunWord { RunWord(rawValue: 0) }

  var block: UInt64 { rawValue >> 16 }
  var count: UInt64 { rawValue & 0xFFFF }

  init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Nil where the run does not fit: on a device of a million TiB.
  init?(_ run: PhysicalRun) {
    guard run.count <= 0xFFFF, run.block < 1 << 48 else { return nil }
    rawValue = run.block << 16 | run.count
  }

  /// The run without its first `count` blocks, of which it has as many. It may become empty, and then says where it ended.
  func dropping(_ count: UInt64) -> RunWord { RunWord(rawValue: rawValue + count << 16 - count) }
}
