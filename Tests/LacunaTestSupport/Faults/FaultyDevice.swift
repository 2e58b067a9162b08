import Bytes
package import Devices
import Glibc

/// A device that can lose what no sync has covered while the system runs on.
package protocol VolatileDevice: BlockDevice {
  /// Loses it; `visibly`: reads see the old bytes at once.
  func dropUnsynced(visibly: Bool)
}

/// How many calls a device got, by kind, whether they succeeded or not; and the bytes of those that did. A batch is one call.
package struct DeviceCallCounts: Sendable, Equatable {
  package var reads = 0
  package var writes = 0
  package var syncs = 0
  package var discards = 0
  package var grows = 0
  package var bytesRead: UInt64 = 0
  package var bytesWritten: UInt64 = 0

  package init() {}

  /// All calls.
  package var total: Int { reads + writes + syncs + discards + grows }

  /// The calls of one kind; those of all kinds for nil.
  package subscript(_ operation: DeviceError.Operation?) -> Int {
    switch operation {
    case .read: reads
    case .write: writes
    case .sync: syncs
    case .discard: discards
    case .grow: grows
    case .open, .lock, .close, .findAllocated: 0
    case nil: total
    }
  }
}

/// A failure to come.
package struct DeviceFault: Sendable {
  /// What the call does before it fails.
  package enum Effect: Sendable {
    case nothing
    /// The first half of the bytes moves; of a batch, every second piece, and half of a single one.
    case half
    /// All of it happens; only the answer is wrong.
    case all
    /// What no sync has covered is lost, as when Linux drops pages it could not write. For syncs of a `VolatileDevice`.
    case dropsUnsynced(visibly: Bool)
  }

  /// The kind of call that fails; any for nil.
  package var operation: DeviceError.Operation?
  /// Which one, counted from 0 since the device was made, among those of its kind.
  package var call: Int
  package var errno: Int32
  /// Whether all later calls of the kind fail as well.
  package var lasts: Bool
  package var effect: Effect

  package init(
    _ operation: DeviceError.Operation?, call: Int, errno: Int32 = EIO, lasts: Bool = false, effect: Effect = .nothing
  ) {
    self.operation = operation
    self.call = call
    self.errno = errno
    self.lasts = lasts
    self.effect = effect
  }

  fileprivate func meets(_ operation: DeviceError.Operation, _ counts: DeviceCallCounts) -> Bool {
    guard self.operation == nil || self.operation == operation else { return false }
    let number = counts[self.operation]
    return lasts ? number >= call : number == call
  }
}

/// What a read returns in place of the bytes that were written, with no error: a bad disk, or a bad cable.
package enum ReadCorruption: Sendable {
  /// One bit is the other one; counted from the first bit of the range.
  case flippedBit(UInt64)
  case zeroes
  /// The bytes of another place: a misdirected read or write.
  case bytes(from: UInt64)
}

/// A device that fails when it is told to, and counts its calls.
///
/// Any number of threads may call it. Which of several concurrent calls is the n-th is then up to them.
package final class FaultyDevice<Base: BlockDevice>: BlockDevice {
  private struct State {
    var counts = DeviceCallCounts()
    var faults: [DeviceFault] = []
    var corruptions: [(range: Range<UInt64>, kind: ReadCorruption)] = []
    var host: (@Sendable (DeviceError.Operation, Range<UInt64>) -> Int?)?
  }

  package let base: Base
  private let state = Locked(State())

  package init(_ base: Base, faults: [DeviceFault] = []) {
    self.base = base
    state.withLock { $0.faults = faults }
  }

  /// The calls so far.
  package var counts: DeviceCallCounts { state.withLock { $0.counts } }

  /// Adds a failure. Numbers count all calls since the device was made: add `counts[operation]` for one from now on.
  package func inject(_ fault: DeviceFault) { state.withLock { $0.faults.append(fault) } }

  /// Makes the device a good one again.
  package func clearFaults() {
    state.withLock {
      $0.faults = []
      $0.corruptions = []
      $0.host = nil
    }
  }

  /// Makes the host short of room, until it is nil: `host` says for each write and each growth, by its range of bytes, how many bytes
  /// of it are done before it fails with ENOSPC; nil where it goes well.
  package func setHost(_ host: (@Sendable (DeviceError.Operation, Range<UInt64>) -> Int?)?) {
    state.withLock { $0.host = host }
  }

  /// Makes reads return wrong bytes for `range`, until the faults are cleared.
  package func corruptReads(of range: Range<UInt64>, _ kind: ReadCorruption) {
    state.withLock { $0.corruptions.append((range, kind)) }
  }

  package var byteCount: UInt64 { base.byteCount }
  package var geometry: DeviceGeometry { base.geometry }

  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    let fault = state.withLock { state in
      defer { state.counts.reads += 1 }
      return state.faults.first { $0.meets(.read, state.counts) }
    }
    if let fault {
      if let count = fault.effect.count(of: buffer.count) {
        try base.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
      }
      throw DeviceError(operation: .read, errno: fault.errno, offset: offset, byteCount: UInt64(buffer.count))
    }
    try base.read(into: buffer, at: offset)
    for (range, kind) in state.withLock({ $0.corruptions }) { try corrupt(buffer, at: offset, range, kind) }
    state.withLock { $0.counts.bytesRead += UInt64(buffer.count) }
  }

  package func read(_ batch: [DeviceRead]) throws(DeviceError) {
    if batch.count == 1 { return try read(into: batch[0].buffer, at: batch[0].offset) }
    let fault = state.withLock { state in
      defer { state.counts.reads += 1 }
      return state.faults.first { $0.meets(.read, state.counts) }
    }
    if let fault {
      try base.read(fault.effect.pieces(of: batch))
      throw DeviceError(
        operation: .read, errno: fault.errno, offset: batch.first?.offset ?? 0, byteCount: UInt64(batch.byteCount))
    }
    try base.read(batch)
    for (range, kind) in state.withLock({ $0.corruptions }) {
      for piece in batch { try corrupt(piece.buffer, at: piece.offset, range, kind) }
    }
    state.withLock { $0.counts.bytesRead += UInt64(batch.byteCount) }
  }

  package func write(_ batch: [DeviceWrite]) throws(DeviceError) {
    if batch.count == 1 { return try write(batch[0].buffer, at: batch[0].offset) }
    let (fault, host) = state.withLock { state in
      defer { state.counts.writes += 1 }
      return (state.faults.first { $0.meets(.write, state.counts) }, state.host)
    }
    for (index, piece) in batch.enumerated() {
      let range = span(piece.offset, piece.buffer.count)
      guard let kept = host?(.write, range) else { continue }
      try base.write(Array(batch[..<index]))
      if kept > 0 {
        let part = UnsafeRawBufferPointer(rebasing: piece.buffer[..<min(kept, piece.buffer.count)])
        try base.write(part, at: piece.offset)
      }
      throw DeviceError(operation: .write, errno: ENOSPC, offset: piece.offset, byteCount: range.length)
    }
    if let fault {
      try base.write(fault.effect.pieces(of: batch))
      throw DeviceError(
        operation: .write, errno: fault.errno, offset: batch.first?.offset ?? 0, byteCount: UInt64(batch.byteCount))
    }
    try base.write(batch)
    state.withLock { $0.counts.bytesWritten += UInt64(batch.byteCount) }
  }

  package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    let (fault, host) = state.withLock { state in
      defer { state.counts.writes += 1 }
      return (state.faults.first { $0.meets(.write, state.counts) }, state.host)
    }
    if let kept = host?(.write, span(offset, buffer.count)) {
      if kept > 0 { try base.write(UnsafeRawBufferPointer(rebasing: buffer[..<min(kept, buffer.count)]), at: offset) }
      throw DeviceError(operation: .write, errno: ENOSPC, offset: offset, byteCount: UInt64(buffer.count))
    }
    guard let fault else {
      try base.write(buffer, at: offset)
      state.withLock { $0.counts.bytesWritten += UInt64(buffer.count) }
      return
    }
    if let count = fault.effect.count(of: buffer.count) {
      try base.write(UnsafeRawBufferPointer(rebasing: buffer[..<count]), at: offset)
    }
    throw DeviceError(operation: .write, errno: fault.errno, offset: offset, byteCount: UInt64(buffer.count))
  }

  package func sync() throws(DeviceError) {
    let fault = state.withLock { state in
      defer { state.counts.syncs += 1 }
      return state.faults.first { $0.meets(.sync, state.counts) }
    }
    guard let fault else { return try base.sync() }
    switch fault.effect {
    case .nothing, .half: break
    case .all: try base.sync()
    case .dropsUnsynced(let visibly): (base as? any VolatileDevice)?.dropUnsynced(visibly: visibly)
    }
    throw DeviceError(operation: .sync, errno: fault.errno)
  }

  package func discard(_ range: Range<UInt64>) throws(DeviceError) {
    let fault = state.withLock { state in
      defer { state.counts.discards += 1 }
      return state.faults.first { $0.meets(.discard, state.counts) }
    }
    guard let fault else { return try base.discard(range) }
    if let count = fault.effect.count(of: Int(range.length)) {
      try base.discard(range.lowerBound..<range.lowerBound + UInt64(count))
    }
    throw DeviceError(operation: .discard, errno: fault.errno, offset: range.lowerBound, byteCount: range.length)
  }

  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    try base.allocatedRuns(in: range)
  }

  package func grow(to byteCount: UInt64) throws(DeviceError) {
    let (fault, host) = state.withLock { state in
      defer { state.counts.grows += 1 }
      return (state.faults.first { $0.meets(.grow, state.counts) }, state.host)
    }
    if base.byteCount < byteCount, host?(.grow, base.byteCount..<byteCount) != nil {
      throw DeviceError(operation: .grow, errno: ENOSPC, byteCount: byteCount)
    }
    guard let fault else { return try base.grow(to: byteCount) }
    let old = base.byteCount
    if let count = fault.effect.count(of: Int(max(byteCount, old) - old)) { try base.grow(to: old + UInt64(count)) }
    throw DeviceError(operation: .grow, errno: fault.errno, byteCount: byteCount)
  }

  private func corrupt(
    _ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64, _ range: Range<UInt64>, _ kind: ReadCorruption
  ) throws(DeviceError) {
    let hit = range.clamped(to: offset..<offset + UInt64(buffer.count))
    guard !hit.isEmpty else { return }
    let start = Int(hit.lowerBound - offset)
    let part = UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + Int(hit.length)])
    switch kind {
    case .zeroes: for index in part.indices { part[index] = 0 }
    case .bytes(let from): try base.read(into: part, at: from + hit.lowerBound - range.lowerBound)
    case .flippedBit(let bit):
      let position = range.lowerBound + bit / 8
      if hit.contains(position) { part[Int(position - hit.lowerBound)] ^= 1 << UInt8(bit % 8) }
    }
  }
}

extension [DeviceRead] {
  fileprivate var byteCount: Int { reduce(0) { $0 + $1.buffer.count } }
}

extension [DeviceWrite] {
  fileprivate var byteCount: Int { reduce(0) { $0 + $1.buffer.count } }
}

extension DeviceFault.Effect {
  /// Which pieces of a batch move.
  fileprivate func pieces<Piece>(of batch: [Piece]) -> [Piece] {
    switch self {
    case .nothing, .dropsUnsynced: []
    case .half: batch.indices.filter { $0 % 2 == 0 }.map { batch[$0] }
    case .all: batch
    }
  }

  /// How many of `count` bytes move; nil for none at all.
  fileprivate func count(of count: Int) -> Int? {
    switch self {
    case .nothing, .dropsUnsynced: nil
    case .half: count / 2
    case .all: count
    }
  }
}
