import Bytes
import Checksums
import Devices
import ExtentFS
import LacunaTestSupport

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
  private(set) var engine: Engine
  private(set) var volumes: [DiskVolume] = []

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
        guard let volume = try engine.openVolume(named: "disk\(number)") else { break }
        volumes.append(volume)
      }
    } catch {
      throw error
    }
  }

  func close() { try? engine.close() }

  /// Does a random thing, which may be to open the store anew as after the death of the process.
  mutating func step(_ ledgers: CrashLedgers, _ generator: inout SeededGenerator) throws {
    if volumes.count < shape.volumeCount, generator.oneIn(12) { try makeVolume(ledgers) }
    let number = generator.number(below: volumes.count)
    let kind = generator.number(below: 20)
    if kind == 19 {
      try reopen()
      if shape.trims { try reclaim(&generator) }
    } else {
      try step(kind, volumes[number], ledgers.disks[number], &generator)
    }
  }

  /// Makes the next volume.
  mutating func makeVolume(_ ledgers: CrashLedgers) throws {
    var made: DiskVolume?
    try unlessDeviceFails {
      made = try engine.createVolume(
        named: "disk\(volumes.count)", byteCount: UInt64(shape.diskByteCount), createdSeconds: 0)
    }
    if let made {
      volumes.append(made)
      ledgers.didMakeVolume()
    }
  }

  /// Writes to the units `units` of the first volume.
  func write(_ units: Range<UInt64>, _ ledgers: CrashLedgers, durably: Bool = false) throws {
    let ledger = ledgers.disks[0]
    let change = ledger.willWrite(units)
    try finish(change, ledger, durably: durably) {
      try ledger.bytes(of: change).withUnsafeBytes {
        try volumes[0].write($0, at: units.lowerBound * UInt64(shape.unit))
      }
      if durably { try volumes[0].flush() }
    }
  }

  /// Trims the first volume from end to end, and gives the host what that frees.
  func trimAll(_ ledgers: CrashLedgers, givesBack: Bool = true) throws {
    let ledger = ledgers.disks[0]
    let change = ledger.willZero(0..<ledger.blockCount)
    try finish(change, ledger, needsSpace: false) { try volumes[0].discard(in: 0..<UInt64(shape.diskByteCount)) }
    try unlessDeviceFails {
      try engine.checkpoint()
      if givesBack { try engine.trim(leaving: 0) }
    }
  }

  /// Finds what the host holds of free blocks, as a quiet store does, or all at once.
  func reclaim(_ generator: inout SeededGenerator) throws {
    let isQuiet = generator.oneIn(2)
    try unlessDeviceFails {
      if isQuiet {
        while try engine.reclaimSome() {}
      } else {
        _ = try engine.reclaimAll { _, _ in }
      }
    }
  }

  /// Fills the first volume, makes all of it holes, and gives the host back what that freed.
  func fillAndTrim(_ ledgers: CrashLedgers) throws {
    let ledger = ledgers.disks[0]
    let step = UInt64(65536 / shape.unit)
    for first in stride(from: 0, to: ledger.blockCount, by: UInt64.Stride(step)) {
      try write(first..<min(first + step, ledger.blockCount), ledgers)
    }
    try unlessDeviceFails { try engine.checkpoint() }
    try trimAll(ledgers)
  }

  /// Several threads do random things to all volumes at once.
  func stepInThreads(_ count: Int, _ ledgers: CrashLedgers, _ generator: inout SeededGenerator) throws {
    let seed = generator.next()
    try inThreads(count) { thread in
      var generator = SeededGenerator(seed: seed &+ UInt64(thread))
      for _ in 0..<4 {
        let number = generator.number(below: volumes.count)
        try step(generator.number(below: 19), volumes[number], ledgers.disks[number], &generator)
      }
    }
  }

  /// The process dies, and another one opens the store.
  mutating func reopen() throws { try reopen(on: reborn(device)) }

  /// The process dies, and another one opens the store on what is now the device.
  mutating func reopen(on device: Device) throws {
    self = try FaultStore(opening: device, shape, reborn: reborn)
  }

  /// The step `kind`, 0 to 18, on one volume.
  private func step(
    _ kind: Int, _ volume: DiskVolume, _ ledger: DiskLedger, _ generator: inout SeededGenerator
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
      // Parts of blocks are written, and what keeps its space must have some.
      try finish(change, ledger, needsSpace: keepsSpace || shape.unit < CrashShape.blockByteCount) {
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
        if shape.trims { try engine.trim(leaving: 0) }
      }
    }
  }

  /// A change that may find the store full, where the shape says so, or the device failing.
  private func finish(
    _ change: DiskLedger.Change, _ ledger: DiskLedger, needsSpace: Bool = true, durably: Bool = false,
    _ body: () throws -> Void
  ) throws {
    do {
      try body()
      ledger.didFinish(change, durably: durably)
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
    // The volumes were just read, with their checksums.
    if let first = try StoreCheck.findings(on: device, readsData: false).first {
      throw CheckFailure("the store is not sound: \(first)")
    }
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

  /// A number that tells other contents from these.
  func fingerprint() throws -> UInt64 {
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)
    defer { memory.deallocate() }
    var number = UInt64(volumes.count)
    for volume in volumes {
      var offset: UInt64 = 0
      while offset < volume.byteCount {
        let count = Int(min(UInt64(memory.count), volume.byteCount - offset))
        let buffer = UnsafeMutableRawBufferPointer(rebasing: memory[..<count])
        try volume.read(into: buffer, at: offset)
        number = number &* 0x9E37_79B9_7F4A_7C15 &+ UInt64(CRC32C.checksum(UnsafeRawBufferPointer(buffer)))
        offset += UInt64(count)
      }
    }
    return number
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

typealias CrashStore = FaultStore<CrashDevice>
