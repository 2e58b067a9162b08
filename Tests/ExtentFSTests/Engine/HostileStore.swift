import Devices
import ExtentFS
import Glibc
import LacunaTestSupport

/// A small store to change, and everything that can be done with one that was changed.
struct HostileStore: Sendable {
  /// Trees of two levels, inline extents, and a journal that is live.
  let image: MediumImage
  let ledgers: CrashLedgers
  /// Where its checksums are.
  let seals: Seals
  private let limitByteCount: UInt64

  /// Numbers at which arithmetic goes wrong.
  static let boundaries: [UInt64] = [
    0, 1, 2, 255, 1 << 31 - 1, 1 << 31, 1 << 31 + 1, 1 << 32 - 1, 1 << 32, 1 << 53, 1 << 62 - 1, 1 << 62, 1 << 63 - 1,
    1 << 63, .max - 1, .max,
  ]

  static var shape: CrashShape {
    var shape = CrashShape()
    shape.limitByteCount = 900 << 10
    shape.diskByteCount = 112 * 1024
    shape.volumeCount = 3
    shape.mayBeFull = true
    return shape
  }

  /// With more room, and steps of deletions that leave something.
  static var sharingShape: CrashShape {
    var shape = shape
    shape.limitByteCount = 3 << 20
    shape.deletionStepNodeCount = 2
    return shape
  }

  /// Makes the store, the same each time.
  ///
  /// - Parameter isSharing: with snapshots, clones, a throwaway that nobody has let go of, and a half deleted volume.
  init(isSharing: Bool = false) throws {
    let shape = isSharing ? Self.sharingShape : Self.shape
    let device = CrashDevice(byteCount: 0, maximumByteCount: shape.limitByteCount)
    try FaultStore.format(device, shape)
    let ledgers = CrashLedgers(shape) { device.callCount }
    var store = try FaultStore(opening: device, shape)
    var generator = SeededGenerator(seed: 5)
    for _ in 0..<120 { try store.step(ledgers, &generator) }
    // No two of these are one extent.
    for block in stride(from: 0 as UInt64, to: 112, by: 2) {
      let change = ledgers.disks[0].willWrite(block..<block + 1)
      try ledgers.disks[0].bytes(of: change).withUnsafeBytes { try store.volumes[0].write($0, at: block * 1024) }
      ledgers.disks[0].didFinish(change)
    }
    // So few extents are in the volume's record.
    let small = try store.engine.createVolume(named: "small", byteCount: 20_000, createdSeconds: 0)
    for offset in [0, 7000] as [UInt64] {
      try [UInt8](repeating: 9, count: 2048).withUnsafeBytes { try small.write($0, at: offset) }
    }
    try store.engine.checkpoint()
    if isSharing { try Self.share(store.engine) }
    for _ in 0..<12 { try store.step(ledgers, &generator) }
    try store.volumes[0].flush()
    // Only a record behind a flush says that it succeeded: until then, data that changed looks as if it had never arrived.
    let last = ledgers.disks[0].willZero(0..<1)
    try store.volumes[0].discard(in: 0..<1024)
    ledgers.disks[0].didFinish(last)
    image = device.image
    limitByteCount = shape.limitByteCount
    self.ledgers = ledgers
    seals = try Seals(image)
    let kinds = ["inodes 0", "names 0", "space 0", "extents 0", "extents 1", "bitmap", "checksums"]
    for kind in kinds + (isSharing ? ["shared 0"] : [])
    where !seals.blocks.contains(where: { $0.kind == kind }) {
      throw CheckFailure("the store to change has no block of the kind \(kind)")
    }
    guard try seals.inodes().contains(where: { !$0.inlineExtents.isEmpty }) else {
      throw CheckFailure("the store to change has no inline extents")
    }
  }

  /// Snapshots of `disk0` and `disk1`, a clone with changes and a snapshot of its own, a throwaway, and what is left of a volume
  /// that is half deleted.
  private static func share(_ engine: Engine) throws {
    func fill(_ volume: DiskVolume, _ blocks: StrideTo<UInt64>) throws {
      for block in blocks {
        try [UInt8](repeating: 0x77, count: 1024).withUnsafeBytes { try volume.write($0, at: block * 1024) }
      }
    }
    try engine.setAttributes(StoreAttributes(limitByteCount: sharingShape.limitByteCount))
    try engine.snapshot([("disk0", "disk0@a"), ("disk1", "disk1@a")], createdSeconds: 0)
    for name in ["clone", "doomed"] {
      try engine.clone("disk0@a", as: name, createdSeconds: 0)
      guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("'\(name)' is not there") }
      try fill(volume, stride(from: 1, to: 112, by: name == "clone" ? 10 : 3))
      engine.closeVolume(volume)
    }
    try engine.snapshot([("clone", "clone@b")], createdSeconds: 0)
    try fill(try engine.makeEphemeralClone(of: "clone@b"), stride(from: 50, to: 60, by: 2))
    try engine.delete(["doomed"], force: true)
    _ = try engine.dropDeleted()
    let records = try engine.volumeRecords().map(\.record)
    guard records.contains(where: { $0.kind == .deleted && !$0.extents.isEmpty }),
      records.contains(where: { $0.isThrowaway })
    else { throw CheckFailure("the store to change has nothing that is half deleted, or no throwaway") }
  }

  /// A device with the store on it, to be changed.
  func device() -> CrashDevice {
    CrashDevice(image, maximumByteCount: limitByteCount, records: false)
  }

  /// Does all that can be done with a store; an error that is told is a right answer.
  ///
  /// - Throws: where something was written to a store that is open for reading only; where the engine blames itself; and what is no
  ///   error of the engine.
  static func use(_ device: FaultyDevice<CrashDevice>) throws {
    func writeCount() -> Int {
      let counts = device.counts
      return counts.writes + counts.grows + counts.discards
    }
    try tolerant { _ = try StoreCheck.findings(on: device) }
    let before = writeCount()
    try use(device, readOnly: true)
    if writeCount() != before { throw CheckFailure("a store open for reading only was written to") }
    try use(device, readOnly: false)
    try tolerant { _ = try StoreCheck.findings(on: device, readsData: false) }
  }

  private static func tolerant(_ body: () throws -> Void) throws {
    do { try body() } catch let error as ExtentFSError { try requireForeign(error) }
  }

  /// No bytes on a device may look like a fault of the program.
  private static func requireForeign(_ error: ExtentFSError) throws {
    if error.code == .internalInconsistency { throw CheckFailure("bytes on the device led to an \(error)") }
  }

  private static func use<Device: BlockDevice>(_ device: Device, readOnly: Bool) throws {
    var options = shape.options
    options.cacheByteCount = 1 << 16
    // The device has a limit of its own.
    options.limitByteCount = sharingShape.limitByteCount
    var opened: Engine?
    try tolerant { opened = try Engine.open(device, options, readOnly: readOnly).engine }
    guard let engine = opened else { return }
    var volumes: [DiskVolume] = []
    for name in ["disk0", "disk1", "disk2", "small", "disk0@a", "clone", "clone@b"] {
      try tolerant { if let volume = try engine.openVolume(named: name) { volumes.append(volume) } }
    }
    try tolerant { _ = try engine.volumeRecords() }
    for volume in volumes {
      try read(volume)
      if !readOnly { try change(volume) }
    }
    if !readOnly {
      try tolerant { try engine.checkpoint() }
      try tolerant { _ = try engine.createVolume(named: "new", byteCount: 5000, createdSeconds: 0) }
      var isSharing = false
      try tolerant { isSharing = try engine.findVolume(named: "disk0@a") != nil }
      if isSharing { try manage(engine) }
    }
    try? engine.close()
    if case .failed(let failure) = engine.health.mode { try requireForeign(failure.cause) }
  }

  /// What can be done to volumes and snapshots.
  private static func manage(_ engine: Engine) throws {
    try tolerant {
      if let old = try engine.openVolume(named: "disk0@a"), let new = try engine.openVolume(named: "clone@b") {
        var count = 0
        try engine.forEachDifference(from: old, to: new, in: 0..<new.byteCount) { _, _ in
          count += 1
          return count < 10000
        }
      }
    }
    try tolerant { _ = try engine.spaceAccount(of: "clone") }
    try tolerant { _ = try engine.deletionBacklog() }
    try tolerant { try engine.snapshot([("disk0", "disk0@new"), ("clone", "clone@new")], createdSeconds: 0) }
    try tolerant { try engine.clone("disk0@a", as: "copy", createdSeconds: 0) }
    try tolerant {
      let throwaway = try engine.makeEphemeralClone(of: "clone@b")
      try change(throwaway)
      try tolerant { try engine.checkpoint() }
      try engine.discardEphemeralClone(throwaway)
    }
    try tolerant { try engine.rollback("disk1", to: "disk1@a", force: true) }
    try tolerant { try engine.rename("clone", to: "renamed") }
    try tolerant { try engine.resize("disk2", to: 50 * 1024, allowsSmaller: true, force: true) }
    try tolerant { try engine.delete(["disk0@a", "clone@b"], force: true) }
    try tolerant { try engine.delete(["disk1"], force: true) }
    for _ in 0..<20 {
      var isMore = false
      try tolerant { isMore = try engine.dropDeleted() }
      if !isMore { break }
    }
    try tolerant { try engine.checkpoint() }
  }

  private static func read(_ volume: DiskVolume) throws {
    let size = volume.byteCount
    var buffer = [UInt8](repeating: 0, count: 4096)
    for offset in stride(from: 0, to: min(size, 1 << 18), by: 4096) {
      let count = Int(min(4096, size - offset))
      try tolerant {
        try buffer.withUnsafeMutableBytes { try volume.read(into: .init(rebasing: $0[..<count]), at: offset) }
      }
    }
    try tolerant {
      var count = 0
      try volume.forEachExtent(in: 0..<size) { _, _ in
        count += 1
        return count < 10000
      }
    }
  }

  private static func change(_ volume: DiskVolume) throws {
    let size = volume.byteCount
    let buffer = [UInt8](repeating: 0x33, count: 4096)
    for offset in [0, 5000, 100_000] as [UInt64] where offset + 4096 <= size {
      try tolerant { try buffer.withUnsafeBytes { try volume.write($0, at: offset) } }
    }
    try tolerant { try volume.discard(in: 0..<min(size, 150_000)) }
    try tolerant { try volume.zero(in: size / 2..<size, keepsSpace: true) }
    try tolerant { try volume.flush() }
  }
}

extension MediumImage {
  /// The number at a byte.
  func number(at offset: UInt64) -> UInt64 {
    bytes(offset..<offset + 8).withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
  }
}

extension CrashDevice {
  func write(_ bytes: [UInt8], at offset: UInt64) throws {
    try bytes.withUnsafeBytes { try write($0, at: offset) }
  }

  /// Writes a number.
  func put<Number: FixedWidthInteger>(_ number: Number, at offset: UInt64) throws {
    try withUnsafeBytes(of: number.littleEndian) { try write($0, at: offset) }
  }
}

/// The time that the calling thread has had a processor.
enum ThreadClock {
  static func now() -> Duration {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
  }
}
