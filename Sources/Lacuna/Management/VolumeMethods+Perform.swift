internal import Bytes
internal import Devices
internal import ExtentFS
internal import Glibc

extension ListVolumes {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeList {
    let store = try store.onDisk(for: Self.self)
    let limit = try page(limit, Self.limitMax)
    // Of a list in several answers the first sees to it.
    if after == nil { store.bringUpToDate() }
    guard kind != .throwaway else { return try throwaways(of: store, limit) }
    let catalog = try store.catalog()
    var list = VolumeList(volumes: [], next: nil)
    for entry in catalog.stored where isWanted(entry.record.name) {
      guard kind == nil || (kind == .snapshot) == (entry.record.kind == .snapshot) else { continue }
      guard list.volumes.count < limit else {
        list.next = list.volumes.last?.name
        break
      }
      do throws(LacunaError) {
        let origin = catalog.names[entry.record.origin]
        list.volumes.append(try store.information(of: entry, origin: origin, space: space))
      } catch {
        // Deleted since the list was made.
        guard [.noSuchVolume, .deleted].contains(error.code) else { throw error }
      }
    }
    return list
  }

  /// Those of connections alone may share a name, so that a page ends only between two names.
  private func throwaways(of store: DiskStore, _ limit: Int) throws(LacunaError) -> VolumeList {
    var list = VolumeList(volumes: [], next: nil)
    for throwaway in store.throwaways.all.sorted(by: { $0.name.precedes($1.name) }) where isWanted(throwaway.name) {
      if list.volumes.count >= limit, let last = list.volumes.last?.name, last != throwaway.name {
        list.next = last
        break
      }
      list.volumes.append(try store.information(of: throwaway, space: space))
    }
    return list
  }

  private func isWanted(_ name: String) -> Bool {
    name.hasPrefix(prefix ?? "") && after.map { $0.precedes(name) } ?? true
  }
}

extension GetVolumeInfo {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    store.bringUpToDate()
    return try store.information(of: name, space: space)
  }
}

extension CreateVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    var attributes = VolumeAttributes()
    if readOnly { attributes.isReadOnly = true }
    attributes.quotaByteCount = quota
    attributes.reservationByteCount = reservation
    try store.changing { engine throws(ExtentFSError) in
      engine.closeVolume(
        try engine.createVolume(named: name, byteCount: size, createdSeconds: secondsNow(), attributes))
    }
    return try store.information(of: name, space: false)
  }
}

extension DeleteVolumes {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> DeletionResult {
    let store = try store.onDisk(for: Self.self)
    guard !names.isEmpty else { throw LacunaError(.invalidParameter, "the names of what is to be deleted are missing") }
    guard dryRun else {
      let gone = try store.changing(names) { engine throws(ExtentFSError) in
        try engine.delete(names, withSnapshots: snapshots, force: force)
      }
      let damaged = wait ? try store.giveBack(gone, progress) : []
      return DeletionResult(deleted: gone.map(\.record.name), damaged: damaged.isEmpty ? nil : damaged)
    }
    store.bringUpToDate()
    let doomed = try store.naming(names) { () throws(ExtentFSError) in
      try store.engine.findDoomed(names, withSnapshots: snapshots)
    }
    var blockCount: UInt64 = 0
    for name in doomed {
      do throws(LacunaError) {
        let account = try onDisk { () throws(ExtentFSError) in try store.engine.spaceAccount(of: name) }
        blockCount = blockCount &+ account.exclusiveCount
      } catch {
        // It can be deleted, and gives nothing back.
        guard error.code == .damaged else { throw error }
      }
    }
    return DeletionResult(deleted: doomed, bytes: store.bytes(blockCount))
  }
}

extension DiskStore {
  /// Gives back the space of `gone`, in steps between which others come; what the background thread does of it meanwhile is done.
  ///
  /// - Returns: what of it is damaged.
  fileprivate func giveBack(
    _ gone: [CatalogEntry], _ progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> [DeletionResult.Damaged] {
    let names = Dictionary(uniqueKeysWithValues: gone.map { ($0.inode, $0.record.name) })
    var most: UInt64 = 0
    do throws(LacunaError) {
      while true {
        let left = try onDisk { () throws(ExtentFSError) in
          try engine.deletionBacklog().filter { names[$0.inode] != nil }
        }
        // What a damaged store counts may be too much for a sum.
        let bytes = bytes(left.reduce(0) { $0 &+ $1.mappedBlockCount })
        most = max(most, bytes)
        try progress(Progress(stage: "giving back space", done: most - bytes, total: most, unit: .bytes))
        let isOver = left.allSatisfy { $0.damage != nil }
        if isOver {
          return left.map { deletion in
            DeletionResult.Damaged(
              name: names[deletion.inode] ?? "", text: deletion.damage?.facts ?? "",
              bytes: self.bytes(deletion.mappedBlockCount))
          }
        }
        _ = try onDisk { () throws(ExtentFSError) in try engine.dropDeleted() }
        // The lock is not a fair one: a thread that waits for it gets it now.
        usleep(1000)
      }
    } catch {
      throw LacunaError(
        error.code,
        "deleted; but freeing the space has stopped, and continues by itself when the store is open and can be written: \(error.description)"
      )
    }
  }
}

extension RenameVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    try store.changing(name) { engine throws(ExtentFSError) in try engine.rename(name, to: to) }
    return try store.information(of: to, space: false)
  }
}

extension ResizeVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    try store.changing(name) { engine throws(ExtentFSError) in
      try engine.resize(name, to: size, from: from, allowsSmaller: shrink, force: force)
    }
    return try store.information(of: name, space: false)
  }
}

extension SetVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    var change = VolumeAttributes()
    change.isReadOnly = readOnly
    change.quotaByteCount = quota
    change.reservationByteCount = reservation
    change.isDefault = isDefault
    try store.changing(name) { engine throws(ExtentFSError) in try engine.setAttributes(of: name, change, force: force)
    }
    return try store.information(of: name, space: false)
  }
}

extension CloneVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    try store.changing(source) { engine throws(ExtentFSError) in
      try engine.clone(source, as: name, createdSeconds: secondsNow())
    }
    return try store.information(of: name, space: false)
  }
}

extension RollBackVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    let volume = try volumeName(ofSnapshot: snapshot)
    try store.changing(snapshot, volume) { engine throws(ExtentFSError) in
      try engine.rollback(volume, to: snapshot, force: force)
    }
    return try store.information(of: volume, space: false)
  }
}

extension PromoteVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeInfo {
    let store = try store.onDisk(for: Self.self)
    try store.promote(name, as: to)
    return try store.information(of: to, space: false)
  }
}

extension DiffVolumes {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeDiff {
    let store = try store.onDisk(for: Self.self)
    let limit = try page(limit, Self.limitMax)
    // What is no snapshot is compared as of a checkpoint, of which the first answer sees to one.
    if offset ?? 0 == 0, !store.isReadOnly { try onDisk { () throws(ExtentFSError) in try store.engine.checkpoint() } }
    var diff = VolumeDiff(extents: [], next: nil)
    try store.withVolume(named: from) { old throws(LacunaError) in
      try store.withVolume(named: to) { new throws(LacunaError) in
        let start = min(offset ?? 0, new.byteCount)
        try onDisk { () throws(ExtentFSError) in
          try store.engine.forEachDifference(from: old, to: new, in: start..<new.byteCount) { bytes, kind in
            guard diff.extents.count < limit else {
              diff.next = bytes.lowerBound
              return false
            }
            diff.extents.append(
              VolumeDiff.Extent(offset: bytes.lowerBound, length: bytes.length, kind: kind == .data ? .data : .zero))
            return true
          }
        }
      }
    }
    return diff
  }
}

extension MapVolume {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> VolumeMap {
    let store = try store.onDisk(for: Self.self)
    let limit = try page(limit, Self.limitMax)
    var map = VolumeMap(extents: [], next: nil)
    try store.withVolume(named: name) { volume throws(LacunaError) in
      let start = min(offset ?? 0, volume.byteCount)
      try onDisk { () throws(ExtentFSError) in
        try volume.forEachMapping(in: start..<volume.byteCount) { bytes, kind, physical in
          guard map.extents.count < limit else {
            map.next = bytes.lowerBound
            return false
          }
          map.extents.append(
            VolumeMap.Extent(
              offset: bytes.lowerBound, length: bytes.length, kind: VolumeExtent.Kind(kind), physical: physical))
          return true
        }
      }
    }
    return map
  }
}

extension CreateSnapshots {
  public func perform(
    on store: Store, progress: (Progress) throws(LacunaError) -> Void
  ) throws(LacunaError) -> SnapshotList {
    let store = try store.onDisk(for: Self.self)
    guard (1...Self.namesMax).contains(names.count) else {
      throw LacunaError(.invalidParameter, "from 1 to \(Self.namesMax) snapshots are taken at once, not \(names.count)")
    }
    var pairs: [(volume: String, snapshot: String)] = []
    for name in names { pairs.append((try volumeName(ofSnapshot: name), name)) }
    try store.changing(pairs.map(\.volume)) { engine throws(ExtentFSError) in
      try engine.snapshot(pairs, createdSeconds: secondsNow())
    }
    var list = SnapshotList(snapshots: [])
    for name in names { list.snapshots.append(try store.information(of: name, space: false)) }
    return list
  }
}

// MARK: What they share

extension DiskStore {
  /// Changes the store.
  ///
  /// - Parameter names: what is to be there: where it is not, a throwaway of that name is told apart from a mistake.
  func changing<Result>(
    _ names: String..., body: (Engine) throws(ExtentFSError) -> Result
  ) throws(LacunaError) -> Result {
    try changing(names, body: body)
  }

  func changing<Result>(
    _ names: [String], body: (Engine) throws(ExtentFSError) -> Result
  ) throws(LacunaError) -> Result {
    guard !isReadOnly else {
      throw refusalOfWriting ?? LacunaError(.readOnly, "\(path) is open for reading only")
    }
    return try naming(names) { () throws(ExtentFSError) in try body(engine) }
  }

  /// Asks the engine for what is stored by these names.
  func naming<Result>(
    _ names: [String], _ body: () throws(ExtentFSError) -> Result
  ) throws(LacunaError) -> Result {
    do {
      return try onDisk(body)
    } catch {
      guard error.code == .noSuchVolume, let throwaway = names.lazy.compactMap({ self.notStored($0) }).first else {
        throw error
      }
      throw throwaway
    }
  }

  /// Opens a volume, a snapshot or a throwaway for the length of `body`.
  func withVolume<Result>(
    named name: String, _ body: (DiskVolume) throws(LacunaError) -> Result
  ) throws(LacunaError) -> Result {
    if let volume = try onDisk({ () throws(ExtentFSError) in try engine.openVolume(named: name) }) {
      defer { engine.closeVolume(volume) }
      return try body(volume)
    }
    guard let throwaway = throwaways.named(name).first else { throw notStored(name) ?? missing(name) }
    return try body(throwaway.volume)
  }
}

/// How many entries an answer holds at most.
private func page(_ limit: Int?, _ limitMax: Int) throws(LacunaError) -> Int {
  guard let limit else { return limitMax }
  guard (1...limitMax).contains(limit) else {
    throw LacunaError(.invalidParameter, "the limit is from 1 to \(limitMax), not \(limit)")
  }
  return limit
}

/// The volume that a snapshot's name says it is of.
private func volumeName(ofSnapshot name: String) throws(LacunaError) -> String {
  guard let at = name.firstIndex(of: "@"), at > name.startIndex else {
    throw LacunaError(.invalidParameter, "'\(name.beginning(300))' is not the name of a snapshot: that is VOLUME@NAME")
  }
  return String(name[..<at])
}

/// Seconds since 1970.
private func secondsNow() -> UInt64 { UInt64(max(time(nil), 0)) }
