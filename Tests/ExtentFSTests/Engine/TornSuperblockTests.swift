import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// A superblock that a power cut tore must not come back to life through a second one.
@Suite struct TornSuperblockTests {
  private static let shape = CrashShape(limitByteCount: 1 << 20, diskByteCount: 64 * 1024)

  /// The first cut leaves the new superblock whole but for its last sector, which is that of the one
  /// before it there. Recovery goes back to the one before, and
  /// writes where the torn one's trees are. The second cut tears recovery's superblock in the same place: the first
  /// sector is still that of the torn one, and the others, which are the same in all superblocks, are new.
  @Test func `two power cuts that tear one slot leave a store that opens`() throws {
    let device = CrashDevice(byteCount: 0, maximumByteCount: Self.shape.limitByteCount)
    try CrashStore.format(device, Self.shape)
    let ledgers = CrashLedgers(Self.shape) { device.callCount }
    let store = try CrashStore(opening: device, Self.shape)
    try store.write(0..<20, ledgers)
    try store.engine.checkpoint()
    try store.write(10..<30, ledgers)
    try store.engine.checkpoint()
    let expectation = ledgers.expectation(at: device.callCount)
    let superblocks = Self.superblocks(device.log)
    let slot = try #require(superblocks.last).offset
    let newest = superblocks.count - 1
    let older = try #require(superblocks[..<newest].last { $0.offset == slot })
    guard case .write(_, var before) = device.log.calls[older.call] else { return }
    // A torn sector may hold anything; with one wrong byte alone, the superblock would be made whole again.
    before[4032] ^= 0x5A
    try before[3584...].withUnsafeBytes { try device.write($0, at: slot + 3584) }
    let torn = device.image
    store.close()

    let second = CrashDevice(torn, maximumByteCount: Self.shape.limitByteCount)
    let recovered = try CrashStore(opening: second, Self.shape)
    let log = second.log
    recovered.close()
    let (call, offset) = try #require(Self.superblocks(log).last)
    #expect(offset == slot)
    guard case .write(_, let bytes) = log.calls[call] else { return }
    let moment = log.moment(at: call)
    let third = CrashDevice(
      moment.picture(moment.pending.map { _ in .kept }), maximumByteCount: Self.shape.limitByteCount)
    try bytes[512...].withUnsafeBytes { try third.write($0, at: offset + 512) }
    let last = try CrashStore(opening: third, Self.shape)
    defer { last.close() }
    try last.check(expectation)
  }

  /// The calls that write superblocks, and where.
  private static func superblocks(_ log: CrashLog) -> [(call: Int, offset: UInt64)] {
    log.calls.enumerated().compactMap { number, call in
      guard case .write(let offset, let bytes) = call, bytes.count == Superblock.encodedByteCount,
        offset == 0 || offset == StoreGeometry.superblockOffset(ofSlot: 1)
      else { return nil }
      return (number, offset)
    }
  }
}
