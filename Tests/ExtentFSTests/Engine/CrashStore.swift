import Bytes
import Devices
import ExtentFS
import LacunaTestSupport

/// What a workload for a hunt of power cuts is like.
struct CrashShape: Sendable {
  var name = "engine"
  var stepCount = 150
  static let blockByteCount = 1024
  /// What a write is a multiple of: half a block makes writes of parts of blocks.
  var unit = 1024
  var limitByteCount: UInt64 = 3 << 20
  var diskByteCount = 400 * 1024
  /// The first one is there from the start; the others are made on the way.
  var volumeCount = 1
  /// The longest run of bytes that one step changes.
  var longestByteCount = 40 * 1024
  /// Whether the store may be too small for all volumes, so that writes fail.
  var mayBeFull = false
  /// Whether calls may fail because the device does, or did.
  var mayFail = false
  /// The error number that a failing device has; any for nil.
  var errno: Int32?
  var skipsDataVerification = false

  /// Writes of parts of blocks.
  static let parts = CrashShape(name: "engine-parts", unit: 512)
  /// Several volumes, some made between writes to others.
  static let volumes = CrashShape(name: "engine-volumes", unit: 512, diskByteCount: 150 * 1024, volumeCount: 4)
  /// A store with room for less than the volume.
  static let full = CrashShape(
    name: "engine-full", stepCount: 200, limitByteCount: 620 << 10, diskByteCount: 400 * 1024, mayBeFull: true)

  /// Processes that die at any call.
  static let deaths = CrashShape(name: "engine-deaths", unit: 512, volumeCount: 2, mayFail: true)

  var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = limitByteCount
    options.cacheByteCount = 1 << 20
    options.verifiesRecoveredData = !skipsDataVerification
    return options
  }

  var maximumByteCount: UInt64 { limitByteCount }

  /// Whether a change of a volume may end like this.
  fileprivate func allows(_ error: ExtentFSError) -> Bool {
    error.code == .outOfSpace ? mayBeFull : mayFail && allowsDevice(error)
  }

  /// Whether an error is one that the device was made to have, or that follows from an earlier one.
  func allowsDevice(_ error: ExtentFSError) -> Bool {
    if case .device(let cause) = error.code { return errno.map { $0 == cause.errno } ?? true }
    return error.code == .failed
  }
}

extension ExtentFSError {
  /// Whether the device failed, now or earlier.
  var isOfDevice: Bool {
    if case .device = code { return true }
    return code == .failed
  }
}

/// What was told of all volumes of a store.
final class CrashLedgers: Sendable {
  let disks: [DiskLedger]
  private let clock: @Sendable () -> Int
  /// The time at which the making of each volume was over.
  private let made = Locked<[Int]>([])

  init(_ shape: CrashShape, clock: @escaping @Sendable () -> Int) {
    self.clock = clock
    disks = (0..<shape.volumeCount).map { number in
      DiskLedger(
        blockByteCount: shape.unit, blockCount: UInt64(shape.diskByteCount / shape.unit), kind: UInt64(number),
        clock: clock)
    }
  }

  func didMakeVolume() { made.withLock { $0.append(clock()) } }

  func expectation(at point: Int) -> CrashExpectation {
    CrashExpectation(
      disks: disks.map { $0.expectation(at: point) },
      volumeCount: 1 + made.withLock { $0.count { $0 < point } })
  }

  func expectation() -> CrashExpectation {
    CrashExpectation(disks: disks.map { $0.expectation() }, volumeCount: 1 + made.withLock { $0.count })
  }
}

struct CrashExpectation: Sendable {
  var disks: [DiskExpectation]
  /// How many volumes must be there.
  var volumeCount: Int
}

/// A store on a device that fails in some way, with the volumes of a shape, and the steps of its workload.
struct FaultStore<Device: BlockDevice>: Sendable {
  let shape: CrashShape
  let device: Device
  /// The device as a new process finds it, after the death of the one before.
  let reborn: @Sendable (Device) -> Device
  private(set) var engine: Engine<Device>
  private(set) var volumes: [DiskVolume<Device>] = []

  static func format(_ device: Device, _ shape: CrashShape) throws {
    var format = FormatOptions()
    format.blockByteCount = CrashShape.blockByteCount
    format.journalByteCount = 65536
    try Engine.format(device, format)
    let engine = try Engine.open(device, shape.options).engine
    _ = try engine.createVolume(named: "disk0", byteCount: UInt64(shape.diskByteCount), createdSeconds: 0)
    try engine.close()
  }

  init(
    opening device: Device, _ shape: CrashShape, reborn: @escaping @Sendable (Device) -> Device = { $0 }
  ) throws {
    self.device = device
    self.reborn = reborn
    self.shape = shape
    engine = try Engine.open(device, shape.options).engine
    do {
      for number in 0..<shape.volumeCount {
        guard let volume = try engine.volume(named: "disk\(number)") else { break }
        volumes.append(volume)
      }
    } catch {
      engine.letGoOfVolumes()
      throw error
    }
  }

  func close() { try? engine.close() }

  /// Frees the memory of the engine, as the end of a process does, and leaves the device as it is.
  func abandon() { engine.letGoOfVolumes() }

  /// Does a random thing, which may be to open the store anew as after the death of the process.
  mutating func step(_ ledgers: CrashLedgers, _ generator: inout SeededGenerator) throws {
    if volumes.count < shape.volumeCount, generator.oneIn(12) {
      var made: DiskVolume<Device>?
      try unlessDeviceFails {
        made = try engine.createVolume(
          named: "disk\(volumes.count)", byteCount: UInt64(shape.diskByteCount), createdSeconds: 0)
      }
      if let made {
        volumes.append(made)
        ledgers.didMakeVolume()
      }
    }
    let number = generator.number(below: volumes.count)
    let kind = generator.number(below: 20)
    if kind == 19 {
      try reopen()
    } else {
      try step(kind, volumes[number], ledgers.disks[number], &generator)
    }
  }

  /// The process dies, and another one opens the store.
  mutating func reopen() throws {
    let dead = self
    self = try FaultStore(opening: reborn(device), shape, reborn: reborn)
    dead.abandon()
  }

  /// The step `kind`, 0 to 18, on one volume.
  private func step(
    _ kind: Int, _ volume: DiskVolume<Device>, _ ledger: DiskLedger, _ generator: inout SeededGenerator
  ) throws {
    let unit = UInt64(shape.unit)
    let longest = generator.oneIn(2) ? 2 * CrashShape.blockByteCount : shape.longestByteCount
    let blocks = generator.range(below: UInt64(shape.diskByteCount) / unit, longest: UInt64(longest) / unit)
    let bytes = blocks.lowerBound * unit..<blocks.upperBound * unit
    switch kind {
    case 0..<11:
      let change = ledger.willWrite(blocks)
      try finish(change, ledger) {
        try ledger.bytes(of: change).withUnsafeBytes { try volume.write($0, at: bytes.lowerBound) }
      }
    case 11, 12:
      let change = ledger.willZero(blocks)
      let keepsSpace = generator.oneIn(2)
      // Parts of blocks are written.
      try finish(change, ledger, needsSpace: shape.unit < CrashShape.blockByteCount) {
        try volume.zero(in: bytes, keepsSpace: keepsSpace)
      }
    case 13:
      // Whole blocks alone.
      let size = UInt64(CrashShape.blockByteCount)
      let first = (bytes.lowerBound + size - 1) / size * size
      let end = max(first, bytes.upperBound / size * size)
      guard first < end else { return }
      let change = ledger.willZero(first / unit..<end / unit)
      try finish(change, ledger, needsSpace: false) { try volume.discard(in: bytes) }
    case 14..<18:
      let flush = ledger.willFlush()
      try unlessDeviceFails {
        try volume.flush()
        ledger.didFinish(flush)
      }
    default:
      try unlessDeviceFails {
        try engine.checkpoint()
        try engine.trim(leaving: 0)
      }
    }
  }

  /// Fills the first volume, makes all of it holes, and gives the host back what that freed.
  func fillAndTrim(_ ledgers: CrashLedgers) throws {
    let (volume, ledger) = (volumes[0], ledgers.disks[0])
    let unit = UInt64(shape.unit)
    let step = UInt64(65536 / shape.unit)
    for first in stride(from: 0, to: ledger.blockCount, by: UInt64.Stride(step)) {
      let change = ledger.willWrite(first..<min(first + step, ledger.blockCount))
      try finish(change, ledger) {
        try ledger.bytes(of: change).withUnsafeBytes { try volume.write($0, at: first * unit) }
      }
    }
    try unlessDeviceFails { try engine.checkpoint() }
    let change = ledger.willZero(0..<ledger.blockCount)
    try finish(change, ledger, needsSpace: false) { try volume.discard(in: 0..<ledger.blockCount * unit) }
    try unlessDeviceFails {
      try engine.checkpoint()
      try engine.trim(leaving: 0)
    }
  }

  /// A change that may find the store full, where the shape says so, or the device failing.
  private func finish(
    _ change: DiskLedger.Change, _ ledger: DiskLedger, needsSpace: Bool = true, _ body: () throws -> Void
  ) throws {
    do {
      try body()
      ledger.didFinish(change)
    } catch let error as ExtentFSError where shape.allows(error) && (needsSpace || error.code != .outOfSpace) {
      ledger.didFail(change)
    }
  }

  /// What may fail only because the device does.
  private func unlessDeviceFails(_ body: () throws -> Void) throws {
    do { try body() } catch let error as ExtentFSError where shape.mayFail && shape.allowsDevice(error) {}
  }

  /// The volumes are what the ledgers allow, and the store is sound.
  func checkContents(_ expectation: CrashExpectation) throws {
    try checkVolumes(expectation)
    if let first = try StoreCheck.findings(on: device).first { throw CheckFailure("the store is not sound: \(first)") }
  }

  /// The volumes are what the ledgers allow.
  func checkVolumes(_ expectation: CrashExpectation) throws {
    if volumes.count < expectation.volumeCount {
      throw CheckFailure("there are \(volumes.count) volumes, and \(expectation.volumeCount) were made")
    }
    for (number, disk) in expectation.disks.enumerated() {
      try disk.check { buffer, offset in
        if number < volumes.count {
          try volumes[number].read(into: buffer, at: offset)
        } else {
          buffer.initializeMemory(as: UInt8.self, repeating: 0)
        }
      }
    }
  }

  /// As `checkContents`; and the store goes on working.
  func check(_ expectation: CrashExpectation) throws {
    try checkContents(expectation)
    let bytes = [UInt8](repeating: 0x5A, count: 3 * CrashShape.blockByteCount)
    do {
      try bytes.withUnsafeBytes { try volumes[0].write($0, at: UInt64(7 * CrashShape.blockByteCount)) }
    } catch let error as ExtentFSError where error.code == .outOfSpace && shape.mayBeFull {
      // Space must come back.
      try volumes[0].discard(in: 0..<UInt64(shape.diskByteCount))
      try engine.checkpoint()
      try bytes.withUnsafeBytes { try volumes[0].write($0, at: UInt64(7 * CrashShape.blockByteCount)) }
    }
    try volumes[0].flush()
    try engine.checkpoint()
    if let first = try StoreCheck.findings(on: device).first {
      throw CheckFailure("the store is not sound afterwards: \(first)")
    }
  }
}

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
      do { self = try FaultStore(opening: next, shape, reborn: reborn) } catch let error as ExtentFSError {
        guard next.isDead, error.isOfDevice else { throw error }
      }
    }
  }
}

extension CrashScenario<FaultStore<MortalDevice>, CrashLedgers, CrashExpectation> {
  /// Processes die, and then the power goes.
  static func deaths(_ shape: CrashShape) -> CrashScenario {
    CrashScenario(
      name: shape.name, byteCount: 0, maximumByteCount: shape.maximumByteCount, stepCount: shape.stepCount,
      format: { try CrashStore.format($0, shape) },
      open: { try FaultStore(opening: MortalDevice($0), shape) { MortalDevice($0.base) } },
      close: { $0.close() },
      oracle: { CrashLedgers(shape, clock: $0) },
      step: { store, ledgers, _, generator in try store.mortalStep(ledgers, &generator) },
      expectation: { ledgers, point in ledgers.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
  }
}

typealias CrashStore = FaultStore<CrashDevice>

extension CrashScenario<CrashStore, CrashLedgers, CrashExpectation> {
  static func engine(_ shape: CrashShape) -> CrashScenario {
    CrashScenario(
      name: shape.name, byteCount: 0, maximumByteCount: shape.maximumByteCount, stepCount: shape.stepCount,
      format: { try CrashStore.format($0, shape) },
      open: { try CrashStore(opening: $0, shape) },
      close: { $0.close() },
      oracle: { CrashLedgers(shape, clock: $0) },
      step: { store, ledgers, _, generator in try store.step(ledgers, &generator) },
      expectation: { ledgers, point in ledgers.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
  }
}
