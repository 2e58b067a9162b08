import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Devices that fail while a store recovers from the death of its process.
@Suite(.slow) struct EngineRecoveryFaultTests {
  private static let shape = CrashShape(
    name: "recovery", unit: 512, diskByteCount: 100 * 1024, volumeCount: 2, longestByteCount: 12 << 10, mayBeFull: true,
    mayFail: true)

  @Test func `a call that fails during recovery loses nothing, nor does a power cut on top of it`() throws {
    try withSeededGenerator { generator in
      let (image, expectation) = try Self.leave(&generator)
      let counts = try Self.counts(image)
      var count = 0
      for operation in [DeviceError.Operation.read, .write, .sync] {
        guard counts[operation] > 0 else { throw CheckFailure("recovery has no \(operation)") }
        for call in 0..<counts[operation] {
          for (errno, lasts, effect) in [
            (EIO, false, DeviceFault.Effect.nothing), (EIO, true, .half), (ENOSPC, false, .half), (ENOSPC, true, .all),
          ] {
            let fault = DeviceFault(operation, call: call, errno: errno, lasts: lasts, effect: effect)
            do { try Self.recover(image, fault, expectation, &generator) } catch {
              throw CheckFailure("\(fault): \(error)")
            }
            count += 1
          }
        }
      }
      print("recovery: \(count) faults")
    }
  }

  /// What a process leaves that dies with much in its journal.
  private static func leave(_ generator: inout SeededGenerator) throws -> (MediumImage, CrashExpectation) {
    let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: shape.limitByteCount)
    try FaultStore.format(base, shape)
    let ledgers = CrashLedgers(shape) { base.callCount }
    var store = try FaultStore(opening: base, shape)
    for _ in 0..<40 { try store.step(ledgers, &generator) }
    let change = ledgers.disks[0].willWrite(3..<9)
    try ledgers.disks[0].bytes(of: change).withUnsafeBytes { try store.volumes[0].write($0, at: 3 * 512) }
    ledgers.disks[0].didFinish(change)
    return (base.image, ledgers.expectation())
  }

  private static func counts(_ image: MediumImage) throws -> DeviceCallCounts {
    let device = FaultyDevice(CrashDevice(image, maximumByteCount: shape.limitByteCount))
    _ = try FaultStore(opening: device, shape)
    return device.counts
  }

  private static func recover(
    _ image: MediumImage, _ fault: DeviceFault, _ expectation: CrashExpectation, _ generator: inout SeededGenerator
  ) throws {
    let device = FaultyDevice(CrashDevice(image, maximumByteCount: shape.limitByteCount), faults: [fault])
    do {
      let store = try FaultStore(opening: device, shape)
      try store.checkVolumes(expectation)
    } catch let error as ExtentFSError {
      guard case .device(let cause) = error.code, cause.errno == fault.errno else { throw error }
    }
    let log = device.base.log
    let store = try FaultStore(opening: device.base, shape)
    try store.check(expectation)
    store.close()
    // All that was on the device in the beginning was durable.
    let pictures = Pictures(.sampled(8))
    for _ in 0..<4 {
      let moment = log.moment(at: generator.number(below: log.crashPointCount))
      let number = generator.number(below: moment.pictureCount(pictures))
      let picture = moment.picture(number, pictures, seed: generator.next())
      let reborn = try FaultStore(opening: CrashDevice(picture, maximumByteCount: shape.limitByteCount), shape)
      try reborn.check(expectation)
      reborn.close()
    }
  }
}
