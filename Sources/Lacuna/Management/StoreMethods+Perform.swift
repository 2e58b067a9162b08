internal import Devices
internal import ExtentFS

extension GetStoreInfo {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreInfo {
    try store.onDisk(for: Self.self).information()
  }
}

extension SetStore {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreInfo {
    let store = try store.onDisk(for: Self.self)
    if let defaultVolume {
      try store.changing { engine throws(ExtentFSError) in
        try engine.setDefaultVolume(defaultVolume.isEmpty ? nil : defaultVolume)
      }
    }
    return try store.information()
  }
}

extension GetStatistics {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreStatistics {
    try store.onDisk(for: Self.self).statistics()
  }
}

extension GetDeletions {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> Deletions {
    let store = try store.onDisk(for: Self.self)
    let deleted = try store.catalog().deleted
    // What a damaged store counts may be too much for a sum.
    return Deletions(
      volumes: UInt64(deleted.count), mappedLeft: store.bytes(deleted.reduce(0) { $0 &+ $1.record.mappedBlocks }))
  }
}

extension CheckStore {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> CheckResult {
    throw LacunaError(.notSupported, "\(Self.name) is not there yet")
  }
}

extension DumpBlock {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> BlockDump {
    throw LacunaError(.notSupported, "\(Self.name) is not there yet")
  }
}
