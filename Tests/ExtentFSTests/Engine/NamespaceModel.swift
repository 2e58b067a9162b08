import Devices
import LacunaTestSupport

@testable import ExtentFS

/// A store with many volumes, and what they must hold: plain arrays.
struct NamespaceModel<Device: BlockDevice> {
  let device: Device
  private(set) var engine: Engine
  /// What each volume and snapshot must hold, by name.
  private(set) var disks: [String: ReferenceDisk] = [:]
  private var open: [String: DiskVolume] = [:]
  private var throwaways: [(volume: DiskVolume, disk: ReferenceDisk)] = []
  private var nextName = 0
  /// Which volume has a name now, and which volume each snapshot was taken of: names are used again.
  private var volumeNumbers: [String: Int] = [:]
  private var owners: [String: Int] = [:]
  private var volumeCount = 0
  private var options: EngineOptions
  /// How often each kind of operation succeeded.
  private(set) var counts: [String: Int] = [:]
  /// Whether the store may be too small for what is done.
  private let mayBeFull: Bool

  static var volumeCountMax: Int { 12 }
  static var byteCountMax: Int { 200_000 }

  init(on device: Device, _ options: EngineOptions = EngineOptions(), mayBeFull: Bool = false) throws {
    self.device = device
    self.mayBeFull = mayBeFull
    self.options = options
    // So that trees are found half deleted.
    self.options.deletionStepNodeCount = 4
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 65536
    try Engine.format(device, format)
    engine = try Engine.open(device, self.options).engine
  }

  private mutating func freshName() -> String {
    nextName += 1
    return "v\(nextName)"
  }

  /// A name for a volume, perhaps one that another volume had.
  private mutating func volumeName(_ generator: inout SeededGenerator) -> String {
    let gone = (0..<nextName).map { "v\($0 + 1)" }.filter { disks[$0] == nil }
    if generator.oneIn(2), let name = gone.randomElement(using: &generator) { return name }
    return freshName()
  }

  private mutating func noteVolume(_ name: String) {
    volumeCount += 1
    volumeNumbers[name] = volumeCount
  }

  /// The snapshots of the volume `name`, but not those of others that were called so.
  private func snapshots(of name: String) -> [String] {
    names { $0.hasPrefix(name + "@") && owners[$0] == volumeNumbers[name] }
  }

  private mutating func didSucceed(_ what: String) { counts[what, default: 0] += 1 }

  private func names(_ isIncluded: (String) -> Bool) -> [String] { disks.keys.filter(isIncluded).sorted() }

  /// Does something at random, for which a store that may be full may have no room.
  mutating func step(_ generator: inout SeededGenerator) throws {
    do {
      try doSomething(&generator)
    } catch let error as ExtentFSError where mayBeFull && error.code == .outOfSpace {
      didSucceed("full")
      // Space must come back.
      if generator.oneIn(4), let name = disks.keys.sorted().randomElement(using: &generator) {
        try delete([name])
        didSucceed("delete")
      }
    }
  }

  private mutating func doSomething(_ generator: inout SeededGenerator) throws {
    let volumes = names { !$0.contains("@") }
    let snapshots = names { $0.contains("@") }
    switch generator.number(below: 100) {
    case 0..<3 where volumes.count < Self.volumeCountMax:
      let name = volumeName(&generator)
      let byteCount = Int(generator.number(below: Self.byteCountMax)) + 1
      let volume = try engine.createVolume(named: name, byteCount: UInt64(byteCount), createdSeconds: 0)
      disks[name] = ReferenceDisk(byteCount: byteCount)
      open[name] = volume
      noteVolume(name)
      didSucceed("create")
    case 3..<8 where !volumes.isEmpty && snapshots.count < 2 * Self.volumeCountMax:
      // One volume, or several at one instant.
      var chosen = Set<String>()
      for _ in 0...generator.number(below: 3) { chosen.insert(try generator.element(volumes)) }
      let label = freshName()
      try engine.snapshot(chosen.sorted().map { ($0, "\($0)@\(label)") }, createdSeconds: 0)
      for name in chosen {
        (disks["\(name)@\(label)"], owners["\(name)@\(label)"]) = (disks[name], volumeNumbers[name])
      }
      didSucceed("snapshot")
    case 8..<11 where volumes.count < Self.volumeCountMax && !disks.isEmpty:
      let source = try generator.element(volumes + snapshots)
      let name = volumeName(&generator)
      try engine.clone(source, as: name, createdSeconds: 0)
      disks[name] = disks[source]
      noteVolume(name)
      didSucceed("clone")
    case 11..<13 where !volumes.isEmpty && !snapshots.isEmpty:
      let snapshot = try generator.element(snapshots)
      let name = String(VolumeName.volume(of: snapshot))
      guard owners[snapshot] == volumeNumbers[name] else {
        let code: ExtentFSError.Code = disks[name] == nil ? .noSuchVolume : .invalidArgument
        return try expect(code, "strange rollback") { try $0.rollback(name, to: snapshot, force: true) }
      }
      // Clients must not have a volume that becomes smaller within a block.
      if let volume = open.removeValue(forKey: name) { engine.closeVolume(volume) }
      if generator.oneIn(2), disks[snapshot]?.byteCount == disks[name]?.byteCount { _ = try volume(name) }
      try engine.rollback(name, to: snapshot, force: true)
      disks[name] = disks[snapshot]
      didSucceed("rollback")
    case 13..<17 where volumes.count + snapshots.count > Self.volumeCountMax:
      try delete([try generator.element(volumes + snapshots)], withSnapshots: generator.oneIn(3))
      didSucceed("delete")
    case 17..<19 where !volumes.isEmpty:
      let name = try generator.element(volumes)
      var byteCount = Int(generator.number(below: Self.byteCountMax)) + 1
      if byteCount < (disks[name]?.byteCount ?? 0) { byteCount = max(byteCount / 1024, 1) * 1024 }
      try engine.resize(name, to: UInt64(byteCount), allowsSmaller: true, force: true)
      disks[name]?.resize(to: byteCount)
      didSucceed("resize")
    case 19..<20 where !volumes.isEmpty: try rename(try generator.element(volumes), to: volumeName(&generator))
    case 20..<22 where throwaways.count < 4 && !disks.isEmpty:
      let source = try generator.element(volumes + snapshots)
      throwaways.append((try engine.makeEphemeralClone(of: source), disks[source] ?? ReferenceDisk()))
      didSucceed("throwaway")
    case 22..<24 where !throwaways.isEmpty:
      let gone = throwaways.remove(at: Int(generator.number(below: throwaways.count)))
      try engine.discardEphemeralClone(gone.volume)
    case 24..<25 where !throwaways.isEmpty && volumes.count < Self.volumeCountMax:
      let index = generator.number(below: throwaways.count)
      let kept = throwaways[index]
      let name = volumeName(&generator)
      try engine.promote(kept.volume, as: name)
      throwaways.remove(at: index)
      noteVolume(name)
      (disks[name], open[name]) = (kept.disk, kept.volume)
      didSucceed("promote")
    case 25..<27: try engine.checkpoint()
    case 27..<28:
      _ = try engine.reclaimAll { _, _ in }
      didSucceed("reclaim")
    case 28..<31: if try engine.dropDeleted() { didSucceed("drop") }
    case 31..<32: try closeOne(&generator)
    case 32..<60:
      guard let name = disks.keys.sorted().randomElement(using: &generator), let disk = disks[name] else { return }
      try read(try volume(name), disk, &generator)
    case 60..<66 where !throwaways.isEmpty:
      let index = Int(generator.number(below: throwaways.count))
      try change(throwaways[index].volume, &throwaways[index].disk, &generator)
      try read(throwaways[index].volume, throwaways[index].disk, &generator)
    default:
      guard !volumes.isEmpty else { return }
      let name = try generator.element(volumes)
      guard var disk = disks.removeValue(forKey: name) else { return }
      defer { disks[name] = disk }
      try change(try volume(name), &disk, &generator)
    }
  }

  mutating func delete(_ names: [String], withSnapshots: Bool = false) throws {
    let all = names.flatMap { name in withSnapshots ? [name] + snapshots(of: name) : [name] }
    let gone = try engine.delete(names, withSnapshots: withSnapshots, force: true).map(\.record.name)
    try check(Set(gone) == Set(all), "\(gone) were deleted, and \(all) should have been")
    for name in all {
      (disks[name], open[name], volumeNumbers[name], owners[name]) = (nil, nil, nil, nil)
    }
    if all.count > names.count { didSucceed("delete with snapshots") }
  }

  private mutating func rename(_ name: String, to new: String) throws {
    let renamed = ([name] + snapshots(of: name)).map { (old: $0, new: new + $0.dropFirst(name.count)) }
    guard renamed.allSatisfy({ disks[$0.new] == nil }) else {
      return try expect(.nameTaken, "strange rename") { try $0.rename(name, to: new) }
    }
    try engine.rename(name, to: new)
    for (old, new) in renamed {
      disks[new] = disks.removeValue(forKey: old)
      open[new] = open.removeValue(forKey: old)
      volumeNumbers[new] = volumeNumbers.removeValue(forKey: old)
      owners[new] = owners.removeValue(forKey: old)
    }
    didSucceed("rename")
  }

  /// Does what must be refused.
  private mutating func expect(
    _ code: ExtentFSError.Code, _ what: String, _ body: (Engine) throws -> Void
  ) throws {
    do {
      try body(engine)
    } catch let error as ExtentFSError where error.code == code {
      return didSucceed(what)
    }
    throw CheckFailure("a \(what) was not refused")
  }

  private mutating func closeOne(_ generator: inout SeededGenerator) throws {
    guard let name = open.keys.sorted().randomElement(using: &generator), let volume = open.removeValue(forKey: name)
    else { return }
    engine.closeVolume(volume)
    didSucceed("close")
  }

  private mutating func volume(_ name: String) throws -> DiskVolume {
    if let volume = open[name] { return volume }
    guard let volume = try engine.openVolume(named: name) else { throw CheckFailure("'\(name)' is not there") }
    open[name] = volume
    return volume
  }

  private func change(
    _ volume: DiskVolume, _ disk: inout ReferenceDisk, _ generator: inout SeededGenerator
  ) throws {
    let range = generator.range(in: disk, longest: 12_000)
    switch generator.number(below: 10) {
    case 0:
      let keepsSpace = generator.oneIn(2)
      try reach(0, in: range, of: volume, &disk) {
        try volume.zero(in: UInt64(range.lowerBound)..<UInt64(range.upperBound), keepsSpace: keepsSpace)
      }
    case 1:
      // The whole blocks; the last one counts as if the disk filled it.
      let end = range.upperBound == disk.byteCount ? disk.byteCount : range.upperBound / 1024 * 1024
      let start = (range.lowerBound + 1023) / 1024 * 1024
      try volume.discard(in: UInt64(range.lowerBound)..<UInt64(range.upperBound))
      if start < end { disk.zero(start..<end) }
    default:
      let bytes = [UInt8](repeating: UInt8(1 + generator.number(below: 255)), count: range.count)
      try reach(bytes[0], in: range, of: volume, &disk) {
        try bytes.withUnsafeBytes { try volume.write($0, at: UInt64(range.lowerBound)) }
      }
    }
  }

  /// Makes all bytes of `range` be `byte`, by `body`, which may find the store full.
  private func reach(
    _ byte: UInt8, in range: Range<Int>, of volume: DiskVolume, _ disk: inout ReferenceDisk,
    _ body: () throws -> Void
  ) throws {
    do {
      try body()
    } catch {
      if mayBeFull, (error as? ExtentFSError)?.code == .outOfSpace { try accept(byte, in: range, of: volume, &disk) }
      throw error
    }
    let bytes = [UInt8](repeating: byte, count: range.count)
    bytes.withUnsafeBytes { disk.write($0, at: range.lowerBound) }
  }

  /// Each byte of `range` may be as it was, or `byte`: takes over what it is.
  private func accept(
    _ byte: UInt8, in range: Range<Int>, of volume: DiskVolume, _ disk: inout ReferenceDisk
  ) throws {
    var found = [UInt8](repeating: 0, count: range.count)
    try found.withUnsafeMutableBytes { try volume.read(into: $0, at: UInt64(range.lowerBound)) }
    let old = disk.bytes[range]
    for (index, other) in zip(range, found) where other != byte && other != old[index] {
      throw CheckFailure("'\(volume.name)', byte \(index) is neither what it was nor what was written")
    }
    found.withUnsafeBytes { disk.write($0, at: range.lowerBound) }
  }

  private func read(_ volume: DiskVolume, _ disk: ReferenceDisk, _ generator: inout SeededGenerator) throws {
    try check(
      volume.byteCount == UInt64(disk.byteCount),
      "'\(volume.name)' has \(volume.byteCount) bytes, not \(disk.byteCount)")
    try read(volume, disk, generator.range(in: disk, longest: 20_000))
  }

  private func read(_ volume: DiskVolume, _ disk: ReferenceDisk, _ range: Range<Int>) throws {
    var bytes = [UInt8](repeating: 0, count: range.count)
    try bytes.withUnsafeMutableBytes { buffer in
      try volume.read(into: buffer, at: UInt64(range.lowerBound))
      do { try disk.check(UnsafeRawBufferPointer(buffer), at: range.lowerBound) } catch {
        throw CheckFailure("'\(volume.name)': \(error)")
      }
    }
  }

  /// Reads everything.
  mutating func readAll() throws {
    for (name, disk) in disks.sorted(by: { $0.key < $1.key }) {
      let volume = try volume(name)
      try check(
        volume.byteCount == UInt64(disk.byteCount), "'\(name)' has \(volume.byteCount) bytes, not \(disk.byteCount)")
      try read(volume, disk, 0..<disk.byteCount)
    }
    for (volume, disk) in throwaways { try read(volume, disk, 0..<disk.byteCount) }
  }

  /// Closes the store, holds it against the independent check, and opens it again. The throwaways go.
  ///
  /// - Parameter stepCount: how many steps of what is deleted are done before; all of them for nil.
  mutating func reopen(afterDropping stepCount: Int? = nil) throws {
    if let stepCount {
      for _ in 0..<stepCount { _ = try engine.dropDeleted() }
    } else {
      while try engine.dropDeleted() {}
    }
    try engine.close()
    let findings = try StoreCheck.findings(on: device)
    try check(findings.isEmpty, "\(findings.prefix(5))")
    (open, throwaways) = ([:], [])
    engine = try Engine.open(device, options).engine
  }

  /// Deletes everything.
  mutating func deleteAll() throws {
    for (volume, _) in throwaways { try engine.discardEphemeralClone(volume) }
    throwaways = []
    if !disks.isEmpty { try delete(names { _ in true }) }
    open = [:]
    while try engine.dropDeleted() {}
    try engine.checkpoint()
    // Nothing is used but by the catalog and the like, and nothing else is missing.
    let space = engine.space
    try check(space.usedBlockCount == engine.superblock.nodeBlockCount, "data is left")
    let usable = engine.geometry.usableBlockCount(inDeviceOf: space.blockCount)
    try check(
      space.freeBlockCount + space.usedBlockCount == usable,
      "of \(usable) blocks \(space.usedBlockCount) are in use, and \(space.freeBlockCount) free")
  }
}

extension SeededGenerator {
  fileprivate mutating func element(_ names: [String]) throws -> String {
    try check(!names.isEmpty, "there is nothing to choose from")
    return names[number(below: names.count)]
  }

  fileprivate mutating func range(in disk: ReferenceDisk, longest: UInt64) -> Range<Int> {
    let range = range(below: UInt64(disk.byteCount), longest: longest)
    return Int(range.lowerBound)..<Int(range.upperBound)
  }
}
