// What each method does on an open store.

extension GetStoreInfo {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreInfo {
    throw .unfinished(Self.self)
  }
}

extension SetStore {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreInfo {
    throw .unfinished(Self.self)
  }
}

extension CheckStore {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> CheckResult {
    throw .unfinished(Self.self)
  }
}

extension GetStatistics {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> StoreStatistics {
    throw .unfinished(Self.self)
  }
}

extension DumpBlock {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> BlockDump {
    throw .unfinished(Self.self)
  }
}

extension GetDeletions {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> Deletions {
    throw .unfinished(Self.self)
  }
}

extension ListVolumes {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeList {
    throw .unfinished(Self.self)
  }
}

extension GetVolumeInfo {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension CreateVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension DeleteVolumes {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> DeletionResult {
    throw .unfinished(Self.self)
  }
}

extension RenameVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension ResizeVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension SetVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension CloneVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension RollBackVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension PromoteVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeInfo {
    throw .unfinished(Self.self)
  }
}

extension DiffVolumes {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeDiff {
    throw .unfinished(Self.self)
  }
}

extension MapVolume {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> VolumeMap {
    throw .unfinished(Self.self)
  }
}

extension CreateSnapshots {
  public func perform(on store: Store, progress: (Progress) -> Void) throws(LacunaError) -> SnapshotList {
    throw .unfinished(Self.self)
  }
}

extension LacunaError {
  fileprivate static func unfinished<Method: StoreMethod>(_: Method.Type) -> LacunaError {
    LacunaError(.notSupported, "\(Method.name) is not there yet")
  }
}
