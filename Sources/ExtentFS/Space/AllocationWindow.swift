internal import Atomics
internal import Bytes
internal import Devices
package import Extents

/// A run of free blocks that one volume has taken beforehand, so that its writers do not meet other volumes' at the
/// space map, and so that what it writes one after the other lies together.
///
/// The run is 256 KiB at first, and each next one twice as long up to 4 MiB; less where free space is short. Its rest is
/// in use as far as the space map knows, until `returnRest`.
///
/// Where syncs come often, a run is written with zeroes before it is used: a sync of 4 KiB of data takes about half the time
/// on blocks of the host that were written before (measured: 140 µs instead of 280), and one sync pays for the whole run.
///
/// Thread safety: any thread. `take` costs one compare-and-swap while the run lasts; the thread that finds it empty gets the
/// next one from the space map, and the volume's other writers wait for that. Lock order: this lock, then the space map's.
package final class AllocationWindow: Sendable {
  private struct Fetching {
    /// How long the next run is to be.
    var nextLength: UInt64
    /// How long the last one was, 0 before the first.
    var lastLength: UInt64 = 0
    /// How many syncs there had been when it was fetched.
    var syncCount: UInt64 = 0
  }

  private let map: SpaceMap
  private let syncCount: @Sendable () -> UInt64
  /// What is left of the run.
  private let left = ManagedAtomic(RunWord.empty)
  /// Held while a run is fetched.
  private let fetching: Locked<Fetching>
  private let longest: UInt64

  /// As many blocks per sync, or fewer, make a run worth being written beforehand.
  private static var blocksPerSyncMax: UInt64 { 16 }

  /// A run of `map` that is empty.
  ///
  /// - Parameter syncCount: how many syncs of the device there have been.
  package init(_ map: SpaceMap, syncCount: @escaping @Sendable () -> UInt64 = { 0 }) {
    self.map = map
    self.syncCount = syncCount
    let shift = map.geometry.blockSize.shift
    longest = max((1 << 22) >> shift, 1)
    fetching = Locked(rank: .allocationWindow, Fetching(nextLength: max((1 << 18) >> shift, 1)))
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
        expected: word, desired: word.dropping(taken), successOrdering: .acquiringAndReleasing,
        failureOrdering: .relaxed)
      if done { return PhysicalRun(block: word.block, count: taken) }
      word = now
    }
    return nil
  }

  private func takeFromMap(_ count: UInt64, near: UInt64?) throws(ExtentFSError) -> PhysicalRun {
    try fetching.withLock { state throws(ExtentFSError) in
      // Another thread may have fetched a run meanwhile.
      if let run = takeFromRun(count) { return run }
      let end = near ?? left.load(ordering: .relaxed).block
      guard count < state.nextLength else { return try map.allocate(upTo: count, near: end, purpose: .data) }
      // Many volumes must not keep the last blocks from each other.
      let share = map.freeBlockCount / 64
      let run = try map.allocate(upTo: max(count, min(state.nextLength, share), 1), near: end, purpose: .data)
      let syncs = syncCount()
      if state.lastLength > 0, state.lastLength / Self.blocksPerSyncMax < syncs &- state.syncCount {
        try writeZeroes(run)
      }
      state = Fetching(nextLength: min(state.nextLength * 2, longest), lastLength: run.count, syncCount: syncs)
      let taken = min(max(count, 1), run.count)
      let rest = PhysicalRun(block: run.block + taken, count: run.count - taken)
      if let word = RunWord(rest) {
        left.store(word, ordering: .releasing)
      } else if rest.count > 0 {
        try map.cancelAllocation(rest)
      }
      return PhysicalRun(block: run.block, count: taken)
    }
  }

  /// Writes `run` with zeroes, a block each time: the kernel would keep what comes in large pieces in large folios, in which
  /// small writes cost three times as much.
  private func writeZeroes(_ run: PhysicalRun) throws(ExtentFSError) {
    let blockSize = map.geometry.blockSize
    let zeroes = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 4096)
    defer { unsafe zeroes.deallocate() }
    unsafe zeroes.initializeMemory(as: UInt8.self, repeating: 0)
    for block in run.blocks {
      do throws(DeviceError) {
        try unsafe map.device.write(UnsafeRawBufferPointer(zeroes), at: blockSize.offset(of: block))
      } catch {
        // Whether there is room for what is really wanted, its own write finds out.
        if error.isLackOfSpace { return }
        try map.cancelAllocation(run)
        throw ExtentFSError(error)
      }
    }
  }

  /// Gives the rest of the run back: when the volume closes, and when space is short.
  package func returnRest() throws(ExtentFSError) {
    let word = left.exchange(.empty, ordering: .acquiringAndReleasing)
    guard word.count > 0 else { return }
    try map.cancelAllocation(PhysicalRun(block: word.block, count: word.count))
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
    guard run.count <= 0xFFFF, run.block + run.count < 1 << 48 else { return nil }
    rawValue = run.block << 16 | run.count
  }

  /// The run without its first `count` blocks, of which it has as many. It may become empty, and then says where it ended.
  func dropping(_ count: UInt64) -> RunWord { RunWord(rawValue: rawValue + count << 16 - count) }
}
