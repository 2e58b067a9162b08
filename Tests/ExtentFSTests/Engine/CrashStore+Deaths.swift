import Bytes
import Devices
import ExtentFS
import LacunaTestSupport

/// A device whose process dies at a call that changes it: that call and all later ones do not happen.
final class MortalDevice: BlockDevice {
  let base: CrashDevice
  private let callsLeft = Locked<Int?>(nil)

  init(_ base: CrashDevice) { self.base = base }

  /// Lets `count` more calls succeed.
  func die(after count: Int) { callsLeft.withLock { $0 = count } }

  var isDead: Bool { callsLeft.withLock { $0 == 0 } }

  private func live(_ operation: DeviceError.Operation) throws(DeviceError) {
    let isDead = callsLeft.withLock { left in
      guard let count = left else { return false }
      left = max(count - 1, 0)
      return count == 0
    }
    if isDead { throw DeviceError(operation: operation, errno: 5) }
  }

  var byteCount: UInt64 { base.byteCount }

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try base.read(into: buffer, at: offset)
  }
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try live(.write)
    try base.write(buffer, at: offset)
  }
  func sync() throws(DeviceError) {
    try live(.sync)
    try base.sync()
  }
  func discard(_ range: Range<UInt64>) throws(DeviceError) {
    try live(.discard)
    try base.discard(range)
  }
  func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    try base.allocatedRuns(in: range)
  }
  func grow(to byteCount: UInt64) throws(DeviceError) {
    try live(.grow)
    try base.grow(to: byteCount)
  }
}

extension FaultStore<MortalDevice> {
  /// As `step`, in processes that die at any call, recovery's included.
  mutating func mortalStep(_ ledgers: CrashLedgers, _ generator: inout SeededGenerator) throws {
    if generator.oneIn(6) { device.die(after: generator.number(below: 25)) }
    do { try step(ledgers, &generator) } catch let error as ExtentFSError where device.isDead && error.isOfDevice {}
    while device.isDead {
      let next = MortalDevice(device.base)
      if generator.oneIn(3) { next.die(after: generator.number(below: 25)) }
      do { try reopen(on: next) } catch let error as ExtentFSError {
        guard next.isDead, error.isOfDevice else { throw error }
      }
    }
  }
}

extension CrashScenario<FaultStore<MortalDevice>, CrashLedgers, CrashExpectation> {
  /// Processes die, and then the power goes.
  static func deaths(_ shape: CrashShape) -> CrashScenario {
    var scenario = CrashScenario(
      name: shape.name, byteCount: 0, maximumByteCount: shape.maximumByteCount, stepCount: shape.stepCount,
      format: { try CrashStore.format($0, shape) },
      open: { try FaultStore(opening: MortalDevice($0), shape) { MortalDevice($0.base) } },
      close: { $0.close() },
      oracle: { CrashLedgers(shape, clock: $0) },
      step: { store, ledgers, _, generator in try store.mortalStep(ledgers, &generator) },
      expectation: { ledgers, point in ledgers.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
    scenario.fingerprint = { try $0.fingerprint() }
    return scenario
  }
}
