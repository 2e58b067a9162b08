import Bytes
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport

/// A device in memory that knows what of it is durable, and that fails when told to.
final class JournalTestDevice: BlockDevice {
  struct Write {
    var offset: Int
    var bytes: [UInt8]
  }

  struct State {
    var bytes: [UInt8]
    /// What the medium surely holds.
    var durable: [UInt8]
    /// What was written since the last sync, in order.
    var unsynced: [Write] = []
    var writeCount = 0
    var syncCount = 0
    var failsWrites = false
    /// How many bytes of the next write there is room for, which then fails with ENOSPC; nil where it goes well.
    var roomOfNextWrite: Int?
    var failsReads = false
    var failsSyncs = false
  }

  private let state: Locked<State>
  private let duringSync: @Sendable () -> Void
  let byteCount: UInt64

  init(byteCount: Int, duringSync: @escaping @Sendable () -> Void = {}) {
    let bytes = [UInt8](repeating: 0, count: byteCount)
    state = Locked(State(bytes: bytes, durable: bytes))
    self.byteCount = UInt64(byteCount)
    self.duringSync = duringSync
  }

  convenience init(bytes: [UInt8]) {
    self.init(byteCount: bytes.count)
    state.withLock { $0.bytes = bytes }
  }

  func withState<Result>(_ body: (inout State) throws -> Result) rethrows -> Result { try state.withLock(body) }

  var bytes: [UInt8] { withState { $0.bytes } }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try state.withLock { state throws(DeviceError) in
      guard !state.failsReads, offset + UInt64(buffer.count) <= byteCount else {
        throw DeviceError(operation: .read, errno: EIO, offset: offset)
      }
      state.bytes.withUnsafeBytes {
        buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: $0[Int(offset)..<Int(offset) + buffer.count]))
      }
    }
  }

  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try state.withLock { state throws(DeviceError) in
      guard !state.failsWrites, offset + UInt64(buffer.count) <= byteCount else {
        throw DeviceError(operation: .write, errno: EIO, offset: offset)
      }
      let room = state.roomOfNextWrite.take()
      let written = UnsafeRawBufferPointer(rebasing: buffer[..<min(room ?? buffer.count, buffer.count)])
      state.writeCount += 1
      if !written.isEmpty {
        state.bytes.withUnsafeMutableBytes {
          UnsafeMutableRawBufferPointer(rebasing: $0[Int(offset)...]).copyMemory(from: written)
        }
        state.unsynced.append(Write(offset: Int(offset), bytes: Array(written)))
      }
      if room != nil { throw DeviceError(operation: .write, errno: ENOSPC, offset: offset) }
    }
  }

  func sync() throws(DeviceError) {
    // Only what was written before it began is durable.
    let (count, durable, fails) = state.withLock { state in
      state.syncCount += 1
      return (state.unsynced.count, state.bytes, state.failsSyncs)
    }
    duringSync()
    if fails { throw DeviceError(operation: .sync, errno: EIO) }
    state.withLock { state in
      state.unsynced.removeFirst(count)
      state.durable = durable
    }
  }

  func discard(_ range: Range<UInt64>) throws(DeviceError) {
    throw DeviceError(operation: .discard, errno: EOPNOTSUPP)
  }

  func grow(to byteCount: UInt64) throws(DeviceError) { throw DeviceError(operation: .grow, errno: EOPNOTSUPP) }
}

typealias TestRing = JournalRing

/// Where the rings of the tests lie, with something before and behind that must not change.
let ringRegion: Range<UInt64> = 4096..<4096 + 65536
let deviceByteCount = 65536 + 2 * 4096
let testIdentity = JournalIdentity(storeTag: 0x1122_3344_5566_7788, epoch: 5)

func makeRing(
  _ device: JournalTestDevice, _ identity: JournalIdentity = testIdentity, at offset: UInt64 = 0, sequence: UInt64 = 1
) throws -> TestRing {
  try TestRing(
    device: device, region: ringRegion, identity: identity, start: JournalPosition(offset: offset, sequence: sequence),
    health: EngineHealth())
}

extension JournalRing {
  /// Appends `change`, and returns the record, as replay should return it; nil where the ring is full.
  func append(_ change: JournalRecord.Change) throws -> JournalRecord? {
    let durable = durableSequence
    let sequence =
      switch change {
      case .map(let inode, let logical, let physical, let checksums):
        try checksums.withUnsafeBufferPointer {
          try appendMap(inode: inode, logical: logical, physical: physical, checksums: $0)
        }
      case .unmap(let inode, let logical): try appendUnmap(inode: inode, logical: logical)
      case .reserve(let inode, let logical): try appendReserve(inode: inode, logical: logical)
      case .commitMarker: try appendCommitMarker()
      }
    return sequence.map { JournalRecord(sequence: $0, durableSequence: durable, change: change) }
  }
}

/// What replay returns, with where it ended.
func replay(
  _ device: JournalTestDevice, _ identity: JournalIdentity = testIdentity,
  from tail: JournalPosition = JournalPosition(offset: 0, sequence: 1)
) throws -> (records: [JournalRecord], end: JournalEnd) {
  var records: [JournalRecord] = []
  let replay = try JournalReplay(device: device, region: ringRegion, identity: identity, tail: tail)
  let end = try replay.forEach { records.append($0) }
  return (records, end)
}

func lostDurableSequence(
  _ device: JournalTestDevice, from tail: JournalPosition = JournalPosition(offset: 0, sequence: 1)
) throws -> UInt64? {
  let replay = try JournalReplay(device: device, region: ringRegion, identity: testIdentity, tail: tail)
  return try replay.lostDurableSequence(after: try replay.forEach { _ in })
}

/// A map of `count` blocks with numbers that follow from `seed`.
func map(_ count: Int, seed: UInt64 = 1) -> JournalRecord.Change {
  .map(
    inode: seed, logical: seed * 3, physical: seed * 7 + 1,
    checksums: (0..<UInt32(count)).map { $0 &* 0x9E37_79B9 &+ UInt32(truncatingIfNeeded: seed) })
}

/// How long the record of `change` is, in bytes. The last four may be zeroes, which are there already.
func byteCount(of change: JournalRecord.Change) -> Int {
  switch change {
  case .map(_, _, _, let checksums): JournalFormat.mapByteCount(blockCount: checksums.count)
  case .unmap, .reserve: JournalFormat.rangeByteCount
  case .commitMarker: JournalFormat.headerByteCount
  }
}

/// The code of the `ExtentFSError` that `body` throws.
func thrownCode(_ body: () throws -> Void) -> ExtentFSError.Code? {
  do {
    try body()
    return nil
  } catch { return (error as? ExtentFSError)?.code }
}

/// Whether `code` is that of a device that had no room for a write.
func isOutOfRoom(_ code: ExtentFSError.Code?) -> Bool {
  if case .device(let error) = code { error.operation == .write && error.errno == ENOSPC } else { false }
}

/// Whether `code` is that of a device that failed with EIO in `operation`.
func isDeviceFailure(_ operation: DeviceError.Operation, _ code: ExtentFSError.Code?) -> Bool {
  if case .device(let error) = code { error.operation == operation && error.errno == EIO } else { false }
}
