import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

@Suite(.slow) struct EngineFaultTests {
  private typealias Faulty = FaultyDevice<CrashDevice>

  private static let isLong = getenv("LACUNA_HUNT_SEEDS") != nil

  private static let shape = CrashShape(
    name: "faults", stepCount: 60, unit: 512, diskByteCount: 100 * 1024, volumeCount: 2, longestByteCount: 12 << 10,
    mayBeFull: true, mayFail: true)

  /// A store that is full at first, then grows, and then has whole pieces to give back to its host.
  private static let growing: CrashShape = {
    var shape = EngineFaultTests.shape
    shape.limitByteCount = 6 << 20
    shape.diskByteCount = 1536 << 10
    shape.stepCount = 40
    return shape
  }()
  /// One long volume, so that whole pieces of the device become free.
  private static let discarding: CrashShape = {
    var shape = EngineFaultTests.growing
    shape.limitByteCount = 10 << 20
    shape.diskByteCount = 4 << 20
    shape.volumeCount = 1
    return shape
  }()
  /// What a store that grows has at first.
  private static let firstByteCount: UInt64 = 420 << 10

  /// What a workload on a device with `faults` came to.
  private struct Outcome {
    var counts: DeviceCallCounts
    var base: CrashDevice
    var ledgers: CrashLedgers
  }

  /// Runs the workload to its end, or until the store cannot be opened.
  private static func run(_ fault: DeviceFault?, _ shape: CrashShape, seed: UInt64) throws -> Outcome {
    var shape = shape
    shape.errno = fault?.errno
    let grows = shape.limitByteCount > Self.shape.limitByteCount
    let base = CrashDevice(
      MediumImage(byteCount: 0), maximumByteCount: grows ? firstByteCount : shape.limitByteCount)
    var first = shape
    first.limitByteCount = grows ? firstByteCount : shape.limitByteCount
    try FaultStore.format(base, first)
    let device = Faulty(base, faults: fault.map { [$0] } ?? [])
    let ledgers = CrashLedgers(shape) { base.callCount }
    var generator = SeededGenerator(seed: seed)
    guard var store = try open(device, shape) else {
      return Outcome(counts: device.counts, base: base, ledgers: ledgers)
    }
    for step in 0..<shape.stepCount {
      if grows, step == 15 { base.setMaximumByteCount(shape.limitByteCount) }
      do {
        if grows, step == 20 || step == 35 { try store.fillAndTrim(ledgers) }
        try store.step(ledgers, &generator)
      } catch let error as ExtentFSError
        where shape.allowsDevice(error) || error.code == .outOfSpace
      {
        // Only opening anew can end a step like this. Its engine is that of a dead process.
        guard let again = try open(device, shape) else {
          return Outcome(counts: device.counts, base: base, ledgers: ledgers)
        }
        store = again
      }
      // The ledger takes no note of what such a sync lost.
      if let fault, case .dropsUnsynced = fault.effect, device.counts.syncs > fault.call {
        return Outcome(counts: device.counts, base: base, ledgers: ledgers)
      }
    }
    // What was acknowledged is read, or the error is told.
    do {
      try store.checkVolumes(ledgers.expectation())
    } catch let error as ExtentFSError where shape.allowsDevice(error) {}
    store.close()
    return Outcome(counts: device.counts, base: base, ledgers: ledgers)
  }

  /// Opens, in a few attempts.
  private static func open(_ device: Faulty, _ shape: CrashShape) throws -> FaultStore<Faulty>? {
    for _ in 0..<3 {
      // Opening a file shows what a failed sync has lost.
      device.base.forgetCache()
      do {
        return try FaultStore(opening: device, shape) {
          $0.base.forgetCache()
          return $0
        }
      } catch let error as ExtentFSError {
        guard shape.allowsDevice(error) || error.code == .outOfSpace else { throw error }
      }
    }
    return nil
  }

  /// All faults of one kind of call, or some of them, spread.
  private static func faults(
    _ operation: DeviceError.Operation, _ count: Int, _ effects: [DeviceFault.Effect], most: Int
  ) -> [DeviceFault] {
    let step = isLong ? 1 : max(1, count / most)
    let first = step == 1 ? 0 : Int.random(in: 0..<step)
    return stride(from: first, to: count, by: step).flatMap { call in
      effects.flatMap { effect in
        [(EIO, false), (EIO, true), (ENOSPC, false), (ENOSPC, true)].map { errno, lasts in
          DeviceFault(operation, call: call, errno: errno, lasts: lasts, effect: effect)
        }
      }
    }
  }

  /// Tries each fault; then the store opens without faults, and has what it must.
  private func tryFaults(
    of operation: DeviceError.Operation, effects: [DeviceFault.Effect] = [.nothing], most: Int = 12,
    _ shape: CrashShape = shape
  ) throws {
    try withSeededGenerator { generator in
      let seed = generator.next() >> 16
      let counts = try Self.run(nil, shape, seed: seed).counts
      guard counts[operation] > 0 else { throw CheckFailure("the workload has no \(operation)") }
      let faults = Self.faults(operation, counts[operation], effects, most: most)
      for fault in faults {
        do {
          let outcome = try Self.run(fault, shape, seed: seed)
          let log = outcome.base.log
          var store = try FaultStore(opening: outcome.base, shape)
          // Syncs that drop what is dirty are as good as a power cut; else the kernel has all that was acknowledged.
          if case .dropsUnsynced(let visibly) = fault.effect {
            if !visibly {
              // What the kernel still shows is not there after a power cut.
              let medium = CrashDevice(
                log.moment(at: log.calls.count).durable, maximumByteCount: shape.limitByteCount)
              store = try FaultStore(opening: medium, shape)
            }
            try store.check(outcome.ledgers.expectation(at: .max))
          } else {
            try store.check(outcome.ledgers.expectation())
          }
          store.close()
        } catch {
          throw CheckFailure("\(fault): \(error)")
        }
      }
      print("\(operation): \(faults.count) faults of \(counts[operation]) calls")
    }
  }

  @Test func `a failed read does no harm`() throws { try tryFaults(of: .read, effects: [.nothing, .half]) }

  @Test func `a failed write loses nothing that was acknowledged`() throws {
    try tryFaults(of: .write, effects: [.nothing, .half, .all])
  }

  @Test func `after a failed sync nothing more succeeds until the store is opened anew`() throws {
    try tryFaults(of: .sync, effects: [.nothing, .all])
  }

  @Test func `a failed sync that loses what was dirty loses nothing that was flushed`() throws {
    try tryFaults(of: .sync, effects: [.dropsUnsynced(visibly: true), .dropsUnsynced(visibly: false)])
  }

  @Test func `a device that cannot grow does no harm`() throws {
    try tryFaults(of: .grow, effects: [.nothing, .half, .all], most: 6, Self.growing)
  }

  @Test func `a device that cannot discard does no harm`() throws {
    try tryFaults(of: .discard, effects: [.nothing, .half, .all], most: 6, Self.discarding)
  }

  @Test func `nothing but reads succeeds after a failed sync`() throws {
    let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 3 << 20)
    var shape = Self.shape
    shape.volumeCount = 1
    try FaultStore.format(base, shape)
    let device = Faulty(base)
    let store = try FaultStore(opening: device, shape)
    let volume = store.volumes[0]
    let bytes = [UInt8](repeating: 7, count: 2048)
    try bytes.withUnsafeBytes { try volume.write($0, at: 0) }
    device.inject(DeviceFault(.sync, call: device.counts.syncs))
    #expect(throws: ExtentFSError.self) { try volume.flush() }
    let before = base.callCount
    for _ in 0..<2 {
      #expect(fails(with: .failed) { try volume.flush() })
      #expect(fails(with: .failed) { try bytes.withUnsafeBytes { try volume.write($0, at: 1) } })
      #expect(fails(with: .failed) { try volume.zero(in: 0..<1024, keepsSpace: false) })
      #expect(fails(with: .failed) { try volume.discard(in: 0..<1024) })
      #expect(fails(with: .failed) { try store.engine.checkpoint() })
      #expect(fails(with: .failed) { _ = try store.engine.createVolume(named: "b", byteCount: 1, createdSeconds: 0) })
    }
    var found = [UInt8](repeating: 0, count: 2048)
    try found.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    #expect(found == bytes)
    store.close()
    #expect(base.callCount == before, "something was written")
  }

  private func fails(with code: ExtentFSError.Code, _ body: () throws -> Void) -> Bool {
    do { try body() } catch { return (error as? ExtentFSError)?.code == code }
    return false
  }

  @Test func `a store that could not be opened lets go of its device`() throws {
    let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 3 << 20)
    try FaultStore.format(base, Self.shape)
    weak var gone: Faulty?
    do {
      let device = Faulty(base)
      gone = device
      let store = try FaultStore(opening: device, Self.shape)
      try [UInt8](repeating: 7, count: 2048).withUnsafeBytes { try store.volumes[0].write($0, at: 0) }
      store.close()
    }
    #expect(gone == nil, "a closed engine keeps its device")
    let writer = try FaultStore(opening: base, Self.shape)
    try [UInt8](repeating: 7, count: 2048).withUnsafeBytes { try writer.volumes[0].write($0, at: 0) }
    do {
      let device = Faulty(base, faults: [DeviceFault(.write, call: 0, lasts: true)])
      gone = device
      #expect(throws: ExtentFSError.self) { _ = try FaultStore(opening: device, Self.shape) }
    }
    #expect(gone == nil, "an engine that could not be opened keeps its device")
  }

  // MARK: Full

  @Test func `a full store refuses writes alone, and has room again after a discard`() throws {
    try withSeededGenerator { generator in
      var count = 0
      for blockCount in stride(from: 420, to: 740, by: Self.isLong ? 1 : 16) {
        var shape = Self.shape
        shape.unit = 1024
        shape.mayFail = false
        shape.limitByteCount = UInt64(blockCount * 1024)
        shape.diskByteCount = 300 * 1024
        shape.volumeCount = 1
        let device = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 1 << 30, records: false)
        do {
          try fill(device, shape, &generator)
        } catch {
          throw CheckFailure("\(blockCount) blocks: \(error)")
        }
        count += 1
      }
      print("full: \(count) sizes")
    }
  }

  @Test func `a full host is as a full store`() throws {
    try withSeededGenerator { generator in
      var shape = Self.shape
      shape.unit = 1024
      shape.mayFail = false
      shape.limitByteCount = 1 << 30
      shape.diskByteCount = 8 << 20
      shape.longestByteCount = 1 << 20
      shape.volumeCount = 1
      try fill(CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 5 << 20, records: false), shape, &generator)
    }
  }

  private func fill(_ device: CrashDevice, _ shape: CrashShape, _ generator: inout SeededGenerator) throws {
    try FaultStore.format(device, shape)
    let ledgers = CrashLedgers(shape) { device.callCount }
    var store = try FaultStore(opening: device, shape)
    for _ in 0..<120 { try store.step(ledgers, &generator) }
    try store.check(ledgers.expectation())
    try store.engine.close()
    try FaultStore(opening: device, shape).engine.close()
  }
}
