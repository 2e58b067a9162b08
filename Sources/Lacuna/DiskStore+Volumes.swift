internal import Bytes
internal import Devices
internal import ExtentFS

extension DiskStore {
  /// Opens the export `name` for one client, which closes what it gets; the default one for the empty name.
  func openVolume(named name: String) throws(LacunaError) -> Volume {
    guard let name = name.isEmpty ? try defaultName : name else {
      throw LacunaError(.noSuchVolume, "the store has no default volume, and the client asked for no other")
    }
    // First as it is: an old store may have names that now mean something else.
    if let volume = try onDisk({ () throws(ExtentFSError) in try engine.openVolume(named: name) }) {
      return try open(volume)
    }
    switch try ExportName(name) {
    case .stored: throw try noSuchVolume(name)
    case .throwaway(let source, let label):
      return open(try openThrowaway(named: name, of: source, isShared: label != nil), isPrivate: label == nil)
    case .difference(let from, let to): return try openDifference(named: name, from: from, to: to)
    }
  }

  private func open(_ volume: DiskVolume) throws(LacunaError) -> Volume {
    let isWritable = !isReadOnly && volume.access == .writable
    let description = VolumeDescription(
      onDisk: volume.name, byteCount: volume.byteCount, isReadOnly: !isWritable)
    return open(.disk(volume), volume.inode, description) { [engine] () in engine.closeVolume(volume) }
  }

  private func openDifference(named name: String, from: String, to: String) throws(LacunaError) -> Volume {
    let old = try openSnapshot(named: from)
    do throws(LacunaError) {
      let new = try openSnapshot(named: to)
      let description = VolumeDescription(
        name: name, byteCount: new.byteCount, isReadOnly: true,
        summary: "\(new.byteCount) bytes, \(to) with what changed since \(from)")
      let difference = VolumeDifference(old: old, new: new, engine: engine)
      return open(.difference(difference), new.inode, description) { [engine] () in
        engine.closeVolume(new)
        engine.closeVolume(old)
      }
    } catch {
      engine.closeVolume(old)
      throw error
    }
  }

  /// Opens a snapshot: what never changes, and has no changes that its tree does not have.
  private func openSnapshot(named name: String) throws(LacunaError) -> DiskVolume {
    try onDisk { () throws(ExtentFSError) in
      if let found = try engine.findVolume(named: name), found.record.kind == .snapshot,
        let volume = try engine.openVolume(named: name)
      {
        // A snapshot stays one; what has its name now may be another.
        if volume.inode == found.inode { return volume }
        engine.closeVolume(volume)
      }
      throw ExtentFSError(.noSuchVolume, "there is no snapshot '\(name.beginning(300))'")
    }
  }

  private func open(_ throwaway: Throwaway, isPrivate: Bool) -> Volume {
    let volume = throwaway.volume
    let description = VolumeDescription(
      name: throwaway.name, byteCount: volume.byteCount, isReadOnly: false,
      summary: "\(volume.byteCount) bytes, throwaway", isPrivate: isPrivate)
    return open(.disk(volume), volume.inode, description) { [self] () throws(LacunaError) in try close(throwaway) }
  }

  private func open(
    _ contents: VolumeContents, _ inode: UInt64, _ description: VolumeDescription,
    close: @escaping @Sendable () throws(LacunaError) -> Void
  ) -> Volume {
    let (counters, gate) = (operations.makeCounters(), gates.makeVolumeGate())
    clients.withLock { $0[inode, default: 0] += 1 }
    return Volume(description, contents, gate: gate, counters: counters) { [self] () throws(LacunaError) in
      operations.close(counters)
      gates.remove(gate)
      // Last: who is told that nobody is connected may do what only then may be done.
      defer {
        clients.withLock { clients in
          let left = (clients[inode] ?? 0) - 1
          clients[inode] = left > 0 ? left : nil
        }
      }
      try close()
    }
  }

  /// All volumes and snapshots, in the order of the bytes of their names.
  func volumes() throws(LacunaError) -> [VolumeDescription] {
    try catalog().stored.map { _, record in
      VolumeDescription(onDisk: record, isReadOnly: isReadOnly)
    }
  }

  private func noSuchVolume(_ name: String) throws(LacunaError) -> LacunaError {
    let kind = name.contains("@") ? "snapshot" : "volume"
    let hint = try defaultName.map { "; '\($0)' is there" } ?? ""
    return LacunaError(.noSuchVolume, "there is no \(kind) '\(name.beginning(64))'\(hint)")
  }
}

extension VolumeDescription {
  fileprivate init(onDisk record: InodeRecord, isReadOnly: Bool) {
    let isReadOnly = isReadOnly || record.isReadOnly
    self.init(onDisk: record.name, byteCount: record.byteCount, isReadOnly: isReadOnly)
  }

  fileprivate init(onDisk name: String, byteCount: UInt64, isReadOnly: Bool) {
    let kind = name.contains("@") ? "snapshot" : "thin"
    self.init(
      name: name, byteCount: byteCount, isReadOnly: isReadOnly,
      summary: "\(byteCount) bytes, \(kind)\(isReadOnly ? ", read-only" : "")")
  }
}
