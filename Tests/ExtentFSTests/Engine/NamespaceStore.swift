import Devices
import LacunaTestSupport

@testable import ExtentFS

/// A store on a device that may fail, with a workload on its volumes, snapshots, clones and throwaways.
struct NamespaceStore<Device: BlockDevice> {
  let device: Device
  private(set) var engine: Engine

  private static var unit: Int { NamespaceState.unit }
  private static var unitCountMax: Int { 160 }
  private static var volumeCountMax: Int { 5 }

  static func format(_ device: Device) throws {
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    try Engine.open(device, options).engine.close()
  }

  private static var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = 8 << 20
    options.cacheByteCount = 1 << 20
    options.detectsZeroes = false
    // So that deletions are half-way when the power goes.
    options.deletionStepNodeCount = 3
    return options
  }

  init(opening device: Device) throws {
    self.device = device
    engine = try Engine.open(device, Self.options).engine
  }

  /// Does a random thing.
  mutating func step(_ ledger: NamespaceLedger, _ generator: inout SeededGenerator) throws {
    let state = ledger.state
    let volumes = state.disks.keys.filter { !$0.contains("@") }.sorted()
    let snapshots = state.disks.keys.filter { $0.contains("@") }.sorted()
    let writable = volumes.filter { state.attributes[$0]?.isReadOnly != true }
    let name = "n\(ledger.nextNumber)"
    func any(_ names: [String]) -> String { names[generator.number(below: names.count)] }
    let units = 1 + generator.number(below: Self.unitCountMax)
    switch generator.number(below: 40) {
    case _ where writable.isEmpty, 0...1 where volumes.count < Self.volumeCountMax:
      try create(name, unitCount: units, ledger, &generator)
    case 2...4 where snapshots.count < 2 * Self.volumeCountMax:
      let pairs = Set([any(volumes), any(volumes)]).sorted().map { (volume: $0, snapshot: "\($0)@\(name)") }
      try ledger.note(.snapshot(pairs)) { try engine.snapshot(pairs, createdSeconds: 0) }
    case 5...6 where volumes.count < Self.volumeCountMax:
      let source = any(volumes + snapshots)
      try ledger.note(.clone(source, name: name)) { try engine.clone(source, as: name, createdSeconds: 0) }
    case 7...8 where snapshots.contains { writable.contains(String(VolumeName.volume(of: $0))) }:
      // No name is used again here, so that it tells what a snapshot is of.
      let snapshot = any(snapshots.filter { writable.contains(String(VolumeName.volume(of: $0))) })
      let volume = String(VolumeName.volume(of: snapshot))
      try ledger.note(.rollback(volume, snapshot: snapshot)) {
        try engine.rollback(volume, to: snapshot, force: false)
      }
    case 9...11 where volumes.count + snapshots.count > Self.volumeCountMax:
      let names = Set([any(volumes + snapshots), any(volumes + snapshots)]).sorted()
      let withSnapshots = generator.oneIn(3)
      let all = names + (withSnapshots ? snapshots.filter { names.contains(String(VolumeName.volume(of: $0))) } : [])
      try ledger.note(.delete(all)) { try engine.delete(names, withSnapshots: withSnapshots, force: false) }
    case 12:
      let volume = any(volumes)
      try ledger.note(.rename(volume, name: name)) { try engine.rename(volume, to: name) }
    case 13...14:
      let volume = any(writable)
      let count = units < state.disks[volume]?.count ?? 0 ? (units + 1) / 2 * 2 : units
      try ledger.note(.resize(volume, unitCount: count)) {
        try engine.resize(volume, to: UInt64(count * Self.unit), allowsSmaller: true, force: false)
      }
    case 15...16: try tryOut(any(volumes + snapshots), state, ledger, &generator)
    case 17...18: try ledger.note(.barrier) { try engine.checkpoint() }
    case 19...22: _ = try engine.dropDeleted()
    case 23...26: try ledger.note(.barrier) { try engine.flush() }
    case 27:
      try reopen()
      if generator.oneIn(2) { while try engine.reclaimSome() {} } else { _ = try engine.reclaimAll { _, _ in } }
    default:
      let volume = any(writable)
      guard let disk = state.disks[volume] else { return }
      let range = generator.range(below: UInt64(disk.count), longest: 24)
      let units = Int(range.lowerBound)..<Int(range.upperBound)
      let number = generator.oneIn(6) ? 0 : ledger.nextNumber
      try ledger.note(.write(volume, units: units, number: number)) {
        try withVolume(volume) { try Self.fill($0, units, with: number) }
      }
    }
  }

  /// Makes a volume, perhaps with a quota, a reservation and no leave to write to it.
  private func create(
    _ name: String, unitCount: Int, _ ledger: NamespaceLedger, _ generator: inout SeededGenerator
  ) throws {
    let byteCount = UInt64(unitCount * Self.unit)
    var attributes = VolumeAttributes()
    if generator.oneIn(2) {
      // More than any volume has, since a write that is refused changes a part of what it is for.
      attributes.quotaByteCount = 1 << 20
      attributes.reservationByteCount = generator.oneIn(2) ? byteCount : 1
      attributes.isReadOnly = generator.oneIn(3)
    }
    let expected = NamespaceState.Attributes(
      isReadOnly: attributes.isReadOnly ?? false, quota: (attributes.quotaByteCount ?? 0) / 1024,
      reservation: ((attributes.reservationByteCount ?? 0) + 1023) / 1024)
    try ledger.note(.create(name, unitCount: unitCount, expected)) {
      engine.closeVolume(
        try engine.createVolume(named: name, byteCount: byteCount, createdSeconds: 0, attributes))
    }
  }

  /// Makes a throwaway, changes it, reads it, and lets go of it or keeps it.
  private func tryOut(
    _ source: String, _ state: NamespaceState, _ ledger: NamespaceLedger, _ generator: inout SeededGenerator
  ) throws {
    guard var disk = state.disks[source] else { return }
    let volume = try engine.makeEphemeralClone(of: source)
    let name = "n\(ledger.nextNumber)"
    for _ in 0..<generator.number(below: 4) {
      let range = generator.range(below: UInt64(disk.count), longest: 24)
      let units = Int(range.lowerBound)..<Int(range.upperBound)
      try Self.fill(volume, units, with: ledger.nextNumber)
      disk.replaceSubrange(units, with: repeatElement(ledger.nextNumber, count: units.count))
      if generator.oneIn(3) { try engine.checkpoint() }
    }
    try LacunaTestSupport.check(
      try Self.contents(volume) == disk, "a throwaway of '\(source)' does not hold what was written")
    if generator.oneIn(2) {
      try ledger.note(.keep(disk, name: name)) { try engine.promote(volume, as: name) }
      engine.closeVolume(volume)
    } else {
      try engine.discardEphemeralClone(volume)
    }
  }

  private func withVolume<Result>(_ name: String, _ body: (DiskVolume) throws -> Result) throws -> Result {
    guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("'\(name)' is not there") }
    defer { engine.closeVolume(volume) }
    return try body(volume)
  }

  private static func fill(_ volume: DiskVolume, _ units: Range<Int>, with number: UInt32) throws {
    let bytes = UInt64(units.lowerBound * unit)..<UInt64(units.upperBound * unit)
    if number == 0 { return try volume.zero(in: bytes, keepsSpace: false) }
    let words = [UInt32](repeating: number, count: units.count * unit / 4)
    try words.withUnsafeBytes { try volume.write($0, at: bytes.lowerBound) }
  }

  private static func contents(_ volume: DiskVolume) throws -> NamespaceState.Disk {
    var words = [UInt32](repeating: 0, count: Int(volume.byteCount) / 4)
    try words.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
    return try stride(from: 0, to: words.count, by: unit / 4).map { start in
      let part = words[start..<min(start + unit / 4, words.count)]
      try LacunaTestSupport.check(
        part.allSatisfy { $0 == part.first }, "'\(volume.name)', unit \(start / (unit / 4)) is torn")
      return part.first ?? 0
    }
  }

  /// What the store has.
  func state() throws -> NamespaceState {
    var state = NamespaceState()
    for (_, record) in try engine.volumeRecords() where !record.isTransient {
      state.disks[record.name] = try withVolume(record.name) { try Self.contents($0) }
      let attributes = NamespaceState.Attributes(
        isReadOnly: record.isReadOnly && record.kind == .volume, quota: record.quotaBlocks,
        reservation: record.reservationBlocks)
      if attributes != NamespaceState.Attributes() { state.attributes[record.name] = attributes }
    }
    return state
  }

  private mutating func reopen() throws {
    self = try NamespaceStore(opening: device)
  }

  /// The store has what the ledger allows, is sound, gives back what is deleted, and is sound then.
  func check(_ expectation: NamespaceExpectation) throws {
    try expectation.check(try state())
    // With deletions half-way.
    if let first = try StoreCheck.findings(on: device, readsData: false).first {
      throw CheckFailure("the store is not sound when it is opened: \(first)")
    }
    while try engine.dropDeleted() {}
    try engine.checkpoint()
    if let first = try StoreCheck.findings(on: device).first { throw CheckFailure("the store is not sound: \(first)") }
    try expectation.check(try state())
  }

  /// A number that tells other contents from these.
  func fingerprint() throws -> UInt64 {
    var hasher = Hasher()
    for (name, disk) in try state().disks.sorted(by: { $0.key < $1.key }) {
      hasher.combine(name)
      hasher.combine(disk)
    }
    return UInt64(bitPattern: Int64(hasher.finalize()))
  }
}
