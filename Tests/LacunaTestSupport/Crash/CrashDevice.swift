import Bytes
package import Devices
import Glibc

/// A device in memory that remembers every call which changes it, so that the power can be cut after any of them.
///
/// It serves for two things. Over a workload it keeps a ``CrashLog``, from which every picture of the medium after a
/// power cut can be made, for all crash points of one run. And over such a picture it is the device that a store
/// recovers from, cheaply: it shares the picture's pages, and records as well, for a second crash.
///
/// Calls that change it are numbered from 0 in the order in which they took effect; reads have no number. The pieces of a
/// batch of writes are a call each: so the power can be cut between any two of them, and a picture of a moment before they are
/// synced may have any of them, whole or in part, as a device that writes them in an order of its own leaves them.
///
/// Any number of threads may call it.
package final class CrashDevice: BlockDevice, VolatileDevice {
  /// A call that changed the device, or promised to.
  package enum Call: Sendable, Equatable {
    case write(offset: UInt64, bytes: [UInt8])
    /// All calls with a number below `covers` are on the medium.
    case sync(covers: Int)
    case discard(Range<UInt64>)
    case grow(from: UInt64, to: UInt64)
    /// What no sync had covered was lost with no power cut: a failed writeback.
    case drop
  }

  /// The error number of every call once the power is gone.
  package static let powerCutErrno = ENODEV

  private struct State {
    var medium: MediumEditor
    var start: MediumImage
    var calls: [Call] = []
    var callCount = 0
    var cutAt: Int?
    var isCut = false
    var syncsLie = false
    var maximumByteCount: UInt64
  }

  private let state: Locked<State>
  private let records: Bool
  /// Runs while a sync is on its way, with no lock held: what is written meanwhile is not covered by the sync.
  private let duringSync: (@Sendable () -> Void)?

  /// Makes a device that holds `image`, all of it durable.
  ///
  /// - Parameters:
  ///   - maximumByteCount: the length that `grow` cannot pass; by default that of `image`.
  ///   - records: whether it keeps a log; one without cannot be cut and pictured, and takes a little less memory.
  ///   - duringSync: what to do while a sync is on its way, such as letting other threads go on.
  package init(
    _ image: MediumImage, maximumByteCount: UInt64? = nil, records: Bool = true,
    duringSync: (@Sendable () -> Void)? = nil
  ) {
    self.records = records
    self.duringSync = duringSync
    state = Locked(
      State(
        medium: MediumEditor(image), start: image,
        maximumByteCount: max(maximumByteCount ?? image.byteCount, image.byteCount)))
  }

  /// Makes a device of `byteCount` zeroes.
  package convenience init(byteCount: UInt64, maximumByteCount: UInt64? = nil) {
    self.init(MediumImage(byteCount: byteCount), maximumByteCount: maximumByteCount)
  }

  // MARK: Power

  /// How many calls have changed the device so far: the clock of a ledger, and the number of the next call.
  package var callCount: Int { state.withLock { $0.callCount } }

  /// Everything that happened since the device was made or restarted.
  package var log: CrashLog { state.withLock { CrashLog(start: $0.start, calls: $0.calls) } }

  /// What reads see now.
  package var image: MediumImage { state.withLock { $0.medium.image() } }

  /// Begins a new log, with all that the device holds taken as durable.
  package func restart() {
    state.withLock {
      $0.start = $0.medium.image()
      $0.calls = []
      $0.callCount = 0
    }
  }

  /// Makes call number `call` fail, and every later one and every read after it, with `powerCutErrno`.
  ///
  /// A write, discard or grow that the power cut meets is in the log as its last call: some of it may be on the medium.
  package func cutPower(atCall call: Int) { state.withLock { $0.cutAt = call } }

  /// Cuts the power now.
  package func cutPower() { state.withLock { $0.isCut = true } }

  /// Whether the power is gone.
  package var isPowerCut: Bool { state.withLock { $0.isCut } }

  /// Makes syncs return at once and promise what they do not keep: for tests of the tests.
  package func setSyncsLie(_ lie: Bool) { state.withLock { $0.syncsLie = lie } }

  /// Changes the length that `grow` cannot pass: a disk that fills up, or gets more room.
  package func setMaximumByteCount(_ byteCount: UInt64) { state.withLock { $0.maximumByteCount = byteCount } }

  /// Loses all that no sync has covered, as a failed writeback does.
  ///
  /// - Parameter visibly: whether reads see the old bytes from now on. Otherwise they go on seeing the lost ones, as from
  ///   a page cache, until the power is cut.
  package func dropUnsynced(visibly: Bool) {
    state.withLock { state in
      guard records else { return }
      if visibly {
        let byteCount = state.medium.byteCount
        let log = CrashLog(start: state.start, calls: state.calls)
        state.medium = MediumEditor(log.moment(at: log.calls.count).durable)
        // The file keeps its length while the system runs.
        state.medium.grow(to: byteCount)
      }
      append(.drop, to: &state)
    }
  }

  /// Makes reads see what the medium holds, and what is still to be written, as opening a `FileDevice` does: what was lost
  /// with no trace until now is seen to be lost.
  package func forgetCache() {
    state.withLock { state in
      guard records else { return }
      let byteCount = state.medium.byteCount
      let log = CrashLog(start: state.start, calls: state.calls)
      let moment = log.moment(at: log.calls.count)
      state.medium = MediumEditor(moment.durable)
      for pending in moment.pending { state.medium.apply(pending.call) }
      state.medium.grow(to: byteCount)
    }
  }

  // MARK: BlockDevice

  package var byteCount: UInt64 { state.withLock { $0.medium.byteCount } }

  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    try state.withLock { state throws(DeviceError) in
      let error = DeviceError(operation: .read, errno: EINVAL, offset: offset, byteCount: UInt64(buffer.count))
      try Self.requireRange(offset, buffer.count, in: state, error)
      if state.isCut { throw error.with(Self.powerCutErrno) }
      state.medium.read(into: buffer, at: offset)
    }
  }

  package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    // Outside of the lock: the copy may be long.
    let call = Call.write(offset: offset, bytes: records ? buffer.copied() : [])
    try state.withLock { state throws(DeviceError) in
      let error = DeviceError(operation: .write, errno: EINVAL, offset: offset, byteCount: UInt64(buffer.count))
      try Self.requireRange(offset, buffer.count, in: state, error)
      try change(&state, call, error)
      state.medium.write(buffer, at: offset)
    }
  }

  package func sync() throws(DeviceError) {
    LockOrder.requireMayWait()
    let error = DeviceError(operation: .sync, errno: Self.powerCutErrno)
    let covers = try state.withLock { state throws(DeviceError) in
      try Self.requirePower(&state, error)
      return state.syncsLie ? 0 : state.callCount
    }
    duringSync?()
    try state.withLock { state throws(DeviceError) in
      try Self.requirePower(&state, error)
      append(.sync(covers: covers), to: &state)
    }
  }

  package func discard(_ range: Range<UInt64>) throws(DeviceError) {
    LockOrder.requireMayWait()
    try state.withLock { state throws(DeviceError) in
      let error = DeviceError(
        operation: .discard, errno: EINVAL, offset: range.lowerBound, byteCount: range.length)
      if range.upperBound > state.medium.byteCount { throw error }
      try change(&state, .discard(range), error)
      state.medium.zero(range)
    }
  }

  /// Pages of 4 KiB that were written since they were last discarded.
  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    LockOrder.requireMayWait()
    return try state.withLock { state throws(DeviceError) in
      let error = DeviceError(
        operation: .findAllocated, errno: EINVAL, offset: range.lowerBound, byteCount: range.length)
      if range.upperBound > state.medium.byteCount { throw error }
      if state.isCut { throw error.with(Self.powerCutErrno) }
      return state.medium.allocatedRuns(in: range)
    }
  }

  package func grow(to byteCount: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    try state.withLock { state throws(DeviceError) in
      let error = DeviceError(operation: .grow, errno: ENOSPC, byteCount: byteCount)
      if byteCount > state.maximumByteCount { throw error }
      let old = state.medium.byteCount
      try change(&state, .grow(from: old, to: max(old, byteCount)), error)
      state.medium.grow(to: byteCount)
    }
  }

  /// Logs a call that may leave a part of itself on the medium even when the power cut meets it.
  private func change(_ state: inout State, _ call: Call, _ error: DeviceError) throws(DeviceError) {
    let hadPower = !state.isCut
    do throws(DeviceError) {
      try Self.requirePower(&state, error)
    } catch {
      if hadPower { append(call, to: &state) }
      throw error
    }
    append(call, to: &state)
  }

  private func append(_ call: Call, to state: inout State) {
    if records { state.calls.append(call) }
    state.callCount += 1
  }

  private static func requirePower(_ state: inout State, _ error: DeviceError) throws(DeviceError) {
    if let cutAt = state.cutAt, state.callCount >= cutAt { state.isCut = true }
    if state.isCut { throw error.with(powerCutErrno) }
  }

  private static func requireRange(
    _ offset: UInt64, _ count: Int, in state: State, _ error: DeviceError
  ) throws(DeviceError) {
    let (end, overflows) = offset.addingReportingOverflow(UInt64(count))
    if overflows || end > state.medium.byteCount { throw error }
  }
}

extension DeviceError {
  /// The same failure with another error number.
  func with(_ errno: Int32) -> DeviceError {
    var error = self
    error.errno = errno
    return error
  }
}

extension UnsafeRawBufferPointer {
  /// The bytes, in one go: `Array.init` goes through them one by one in a debug build.
  fileprivate func copied() -> [UInt8] {
    [UInt8](unsafeUninitializedCapacity: count) { bytes, initializedCount in
      if let from = baseAddress, let to = bytes.baseAddress { memcpy(to, from, count) }
      initializedCount = count
    }
  }
}

extension CrashDevice.Call: CustomStringConvertible {
  package var description: String {
    switch self {
    case .write(let offset, let bytes): "write \(bytes.count) at \(offset)"
    case .sync(let covers): "sync of calls below \(covers)"
    case .discard(let range): "discard \(range)"
    case .grow(let from, let to): "grow from \(from) to \(to)"
    case .drop: "lose the unsynced"
    }
  }
}
