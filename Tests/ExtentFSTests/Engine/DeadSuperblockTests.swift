import Bytes
import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// A superblock that a process wrote and died, before any sync, may be in the kernel alone. Recovery counts on it, and so must
/// make it durable before it writes where the superblock before it has its trees.
@Suite struct DeadSuperblockTests {
  /// A device whose process dies behind the next superblock, before which something else happens.
  private final class Device: BlockDevice {
    let base: CrashDevice
    private let state = Locked<(before: (@Sendable () -> Void)?, isDead: Bool)>((nil, false))

    init(_ base: CrashDevice) { self.base = base }

    func die(doingBefore body: @escaping @Sendable () -> Void) { state.withLock { $0.before = body } }
    var isDead: Bool { state.withLock { $0.isDead } }

    private func live() throws(DeviceError) {
      if isDead { throw DeviceError(operation: .write, errno: 5) }
    }

    var byteCount: UInt64 { base.byteCount }
    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
      try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
      try live()
      let isSuperblock = offset < StoreGeometry.journalOffset && buffer.count == Superblock.encodedByteCount
      let before = isSuperblock ? state.withLock { $0.before } : nil
      before?()
      try base.write(buffer, at: offset)
      if before != nil { state.withLock { $0.isDead = true } }
    }
    func sync() throws(DeviceError) {
      try live()
      try base.sync()
    }
    func discard(_ range: Range<UInt64>) throws(DeviceError) {
      try live()
      try base.discard(range)
    }
    func grow(to byteCount: UInt64) throws(DeviceError) {
      try live()
      try base.grow(to: byteCount)
    }
  }

  private static let shape = CrashShape(limitByteCount: 1 << 20, diskByteCount: 64 * 1024)

  @Test func `no power cut during recovery shows the superblock before the one that a dead process wrote spoilt`()
    throws
  {
    let base = CrashDevice(byteCount: 0, maximumByteCount: Self.shape.limitByteCount)
    try CrashStore.format(base, Self.shape)
    let ledgers = CrashLedgers(Self.shape) { base.callCount }
    let device = Device(base)
    let store = try FaultStore(opening: device, Self.shape)
    try store.write(0..<20, ledgers, durably: true)
    try store.engine.checkpoint()
    try store.write(10..<30, ledgers, durably: true)
    // A writer beside the checkpoint: its record is for recovery to merge.
    device.die { try? store.write(30..<40, ledgers) }
    #expect(throws: ExtentFSError.self) { try store.engine.checkpoint() }
    #expect(device.isDead)
    let superblock = base.callCount - 1

    // Before each of recovery's calls the power goes, and that superblock is lost, where it may be; all else is there.
    let expectation = ledgers.expectation(at: base.callCount)
    _ = try FaultStore(opening: Device(base), Self.shape)
    let log = base.log
    var lostCount = 0
    for point in superblock + 1...log.calls.count {
      let moment = log.moment(at: point)
      let picture = moment.picture(moment.pending.map { $0.number == superblock ? .lost : .kept })
      if moment.pending.contains(where: { $0.number == superblock }) { lostCount += 1 }
      let medium = CrashDevice(picture, maximumByteCount: Self.shape.limitByteCount)
      do {
        let store = try CrashStore(opening: medium, Self.shape)
        try store.check(expectation)
        store.close()
      } catch {
        throw CheckFailure("before call \(point): \(error)")
      }
    }
    #expect(lostCount >= 1)
  }
}
