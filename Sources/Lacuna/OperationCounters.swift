internal import Atomics
internal import Bytes
internal import Glibc

/// What clients do with a volume, as statistics tell it apart.
enum VolumeOperation: Int, CaseIterable {
  case read, write, zero, trim, flush
}

/// Counts requests and how long they took. Counting costs two looks at the clock and four additions, and no lock.
@safe final class OperationCounters: @unchecked Sendable {
  // Sendable because the counters are atomic, and the pointer never changes.
  private let counters: UnsafeMutablePointer<UnsafeAtomic<UInt64>.Storage>

  /// Of each operation: how many, bytes, errors, nanoseconds, and the buckets of the histogram.
  private static let fixedCount = 4
  private static let perOperation = fixedCount + StoreStatistics.Latency.bucketCount
  private static let count = VolumeOperation.allCases.count * perOperation

  init() {
    unsafe counters = .allocate(capacity: Self.count)
    for index in 0..<Self.count { unsafe (counters + index).initialize(to: UnsafeAtomic<UInt64>.Storage(0)) }
  }

  deinit {
    for index in 0..<Self.count { _ = unsafe (counters + index).pointee.dispose() }
    unsafe counters.deallocate()
  }

  /// Runs `body`, and counts it.
  @inline(__always)
  func measure<Result>(
    _ operation: VolumeOperation, byteCount: UInt64, _ body: () throws(LacunaError) -> Result
  ) throws(LacunaError) -> Result {
    let start = Self.nanoseconds()
    do throws(LacunaError) {
      let result = try body()
      note(operation, byteCount: byteCount, nanoseconds: Self.nanoseconds() &- start, isError: false)
      return result
    } catch {
      note(operation, byteCount: byteCount, nanoseconds: Self.nanoseconds() &- start, isError: true)
      throw error
    }
  }

  func note(_ operation: VolumeOperation, byteCount: UInt64, nanoseconds: UInt64, isError: Bool) {
    let first = operation.rawValue * Self.perOperation
    add(1, at: first)
    add(byteCount, at: first + 1)
    if isError { add(1, at: first + 2) }
    add(nanoseconds, at: first + 3)
    // Bucket i ends at 2^i microseconds.
    let microseconds = nanoseconds / 1000
    let bucket = min(UInt64.bitWidth - microseconds.leadingZeroBitCount, StoreStatistics.Latency.bucketCount - 1)
    add(1, at: first + Self.fixedCount + bucket)
  }

  /// Adds what `other` has counted.
  func add(_ other: OperationCounters) {
    for index in 0..<Self.count { add(other.value(at: index), at: index) }
  }

  /// What was counted of one operation.
  func statistics(of operation: VolumeOperation) -> StoreStatistics.Operations {
    let first = operation.rawValue * Self.perOperation
    return StoreStatistics.Operations(
      count: value(at: first), bytes: value(at: first + 1), errors: value(at: first + 2),
      latency: StoreStatistics.Latency(
        seconds: Double(value(at: first + 3)) / 1e9,
        buckets: (0..<StoreStatistics.Latency.bucketCount).map { value(at: first + Self.fixedCount + $0) }))
  }

  @inline(__always)
  private func add(_ number: UInt64, at index: Int) {
    // Safe: `index` is below `count`, and the storage lives as long as the object. They order nothing.
    unsafe UnsafeAtomic<UInt64>(at: counters + index).wrappingIncrement(by: number, ordering: .relaxed)
  }

  private func value(at index: Int) -> UInt64 {
    // Safe: as above.
    unsafe UnsafeAtomic<UInt64>(at: counters + index).load(ordering: .relaxed)
  }

  @inline(__always)
  private static func nanoseconds() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(bitPattern: Int64(time.tv_sec &* 1_000_000_000 &+ time.tv_nsec))
  }
}

/// The counters of a store: those of the volumes that are open, and what closed ones have left.
final class OperationTotals: Sendable {
  private struct State {
    var open: [ObjectIdentifier: OperationCounters] = [:]
    let closed = OperationCounters()
  }

  private let state = Locked(rank: .storeTable, State())

  /// Counters for one client of a volume.
  func makeCounters() -> OperationCounters {
    let counters = OperationCounters()
    state.withLock { $0.open[ObjectIdentifier(counters)] = counters }
    return counters
  }

  /// The client is gone.
  func close(_ counters: OperationCounters) {
    state.withLock { state in
      guard state.open.removeValue(forKey: ObjectIdentifier(counters)) != nil else { return }
      state.closed.add(counters)
    }
  }

  /// All of them together.
  func sum() -> OperationCounters {
    let sum = OperationCounters()
    state.withLock { state in
      sum.add(state.closed)
      for counters in state.open.values { sum.add(counters) }
    }
    return sum
  }
}
