import Devices
import ExtentFS
import Glibc
import LacunaTestSupport

extension FuzzTargets {
  private typealias Faulty = FaultyDevice<CrashDevice>

  private static let shape = CrashShape(
    name: "fuzz", stepCount: 0, unit: 512, limitByteCount: 700 << 10, diskByteCount: 100 * 1024, volumeCount: 2,
    longestByteCount: 12 << 10, mayBeFull: true, mayFail: true)

  private static let formatted: MediumImage = {
    let device = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: shape.limitByteCount)
    do { try FaultStore.format(device, shape) } catch { fatalError("no store can be made: \(error)") }
    return device.image
  }()

  /// Operations, failing calls and processes that die; then the store has what was acknowledged. And the power may have gone
  /// before any of the calls: then it has what was flushed.
  static func operations(_ bytes: [UInt8]) throws {
    var generator = SeededGenerator(bytes: bytes)
    let base = CrashDevice(formatted, maximumByteCount: shape.limitByteCount)
    let ledgers = CrashLedgers(shape) { base.callCount }
    let device = Faulty(base)
    let crash = generator.next()
    let picture = generator.next()
    try work(device, ledgers, &generator)

    // Before the checks, which write.
    let log = base.log
    let store = try FaultStore(opening: base, shape)
    try store.check(ledgers.expectation())
    store.close()

    let point = Int(crash >> 48) % log.crashPointCount
    let pictures = Pictures(.sampled(8))
    let moment = log.moment(at: point)
    let image = moment.picture(Int(picture >> 56) % moment.pictureCount(pictures), pictures, seed: picture)
    let reborn = CrashDevice(image, maximumByteCount: shape.limitByteCount)
    let crashed = ledgers.expectation(at: point)
    let recovered = try FaultStore(opening: reborn, shape)
    try recovered.check(crashed)
    recovered.close()
  }

  private static func work(
    _ device: Faulty, _ ledgers: CrashLedgers, _ generator: inout SeededGenerator
  ) throws {
    guard var store = try open(device) else { return }
    for _ in 0..<64 where !generator.isAtEndOfBytes {
      switch generator.number(below: 16) {
      case 0: device.inject(fault(device, &generator))
      case 1: device.clearFaults()
      default:
        do { try store.step(ledgers, &generator) } catch let error as ExtentFSError
          where error.isOfDevice || error.code == .outOfSpace
        {
          // Only opening anew can end a step like this. Its engine is that of a dead process.
          guard let again = try open(device) else { return }
          store = again
        }
      }
    }
    do { try store.checkVolumes(ledgers.expectation()) } catch let error as ExtentFSError where error.isOfDevice {}
    store.close()
  }

  private static func fault(_ device: Faulty, _ generator: inout SeededGenerator) -> DeviceFault {
    let operations: [DeviceError.Operation?] = [.read, .write, .sync, .grow, nil]
    let operation = operations[generator.number(below: operations.count)]
    let effects: [DeviceFault.Effect] = [.nothing, .half, .all]
    return DeviceFault(
      operation, call: device.counts[operation] + generator.number(below: 12), errno: generator.oneIn(2) ? EIO : ENOSPC,
      lasts: generator.oneIn(3), effect: effects[generator.number(below: 3)])
  }

  /// Opens, in a few attempts.
  private static func open(_ device: Faulty) throws -> FaultStore<Faulty>? {
    for _ in 0..<3 {
      do { return try FaultStore(opening: device, shape) } catch let error as ExtentFSError {
        guard error.isOfDevice || error.code == .outOfSpace else { throw error }
      }
    }
    return nil
  }
}
