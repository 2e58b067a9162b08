internal import Atomics
internal import Bytes
internal import Extents

/// What is promised to a volume may be taken once. Writes take it before they map it, side by side: so what is taken and not
/// mapped yet is counted here.
extension DiskVolume {
  /// Takes note of a write to logical blocks from `start` on that takes blocks which are promised, of up to `count`: those of the
  /// first `reserved`, which are reserved zeroes in `view`, or what is left of the volume's reservation.
  ///
  /// - Returns: the logical blocks that have a promise; nil where none is left for the first one.
  func beginPromise(at start: UInt64, count: UInt64, reserved: UInt64, asIn view: View) -> Range<UInt64>? {
    writers.withLock { writer in
      let reserved = stillReserved(start..<start + reserved, since: view)
      // A promise counts once: where another write to the same block is under way, that one has it.
      var free = count
      for taken in writer.promisesInFlight where taken.upperBound > start {
        free = min(free, taken.lowerBound.minusOrZero(start))
      }
      let takenCount = writer.promisesInFlight.reduce(0) { $0 &+ $1.length }
      let left = writer.reservation.minusOrZero(writer.mappedCountMax &+ takenCount)
      let promised = min(free, max(reserved, left))
      guard promised > 0 else { return nil }
      writer.promisesInFlight.append(start..<start + promised)
      return start..<start + promised
    }
  }

  /// How many of `blocks`, from the first one on, are certainly reserved zeroes still, all of which were in `view`. Under `writers`.
  private func stillReserved(_ blocks: Range<UInt64>, since view: View) -> UInt64 {
    let now = current.load(ordering: .relaxed)
    if now === view { return blocks.length }
    guard now.epoch === view.epoch else { return 0 }
    var end = blocks.upperBound
    for delta in [now.active, now.frozen ?? Delta()] {
      delta.forEachRun(in: blocks) { run in
        if run.value != .reservedZeroes { end = min(end, run.positions.lowerBound) }
        return true
      }
    }
    return end - blocks.lowerBound
  }

  /// The write that `beginPromise` took note of has mapped its blocks, or given them back.
  func endPromise(_ promise: Range<UInt64>) {
    writers.withLock { writer in
      guard let index = writer.promisesInFlight.firstIndex(of: promise) else { return }
      writer.promisesInFlight.swapAt(index, writer.promisesInFlight.count - 1)
      writer.promisesInFlight.removeLast()
    }
  }

  /// The same, for a write that may have taken none.
  @inline(__always)
  func endPromise(_ taken: TakenRun) {
    if let promise = taken.promise { endPromise(promise) }
  }

  /// Whether a write has taken blocks which are promised, and does not map them yet.
  var hasPromisesInFlight: Bool { writers.withLock { !$0.promisesInFlight.isEmpty } }
}
