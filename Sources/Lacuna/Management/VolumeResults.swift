internal import ExtentFS

/// What a name stands for.
public enum VolumeKind: String, Codable, Sendable, CaseIterable {
  case volume, snapshot, throwaway
}

/// One volume, snapshot or throwaway.
public struct VolumeInfo: Codable, Sendable, Hashable {
  /// `volume`, `volume@snapshot`, or of a throwaway the export name that its clients used.
  public var name: String
  public var kind: VolumeKind
  /// Bytes that its clients see.
  public var size: UInt64
  /// Bytes that have blocks, those included that others share.
  public var mapped: UInt64
  /// Bytes of unwritten extents: they read as zeroes and have space reserved.
  public var reserved: UInt64
  public var readOnly: Bool
  /// When it was made, in seconds since 1970.
  public var created: UInt64
  /// What it was made from, where that is still there.
  public var origin: String?
  /// The most bytes that it may map; nil for no such limit.
  public var quota: UInt64?
  /// The bytes that are reserved for it as a whole; nil for none.
  public var reservation: UInt64?
  /// How many clients are connected to it.
  public var clients: Int
  /// Whether the empty export name stands for it.
  public var isDefault: Bool
  /// Whose space it is; only where that was asked for.
  public var space: Space?
  /// What cannot be read of it, and what that means; nil where nothing is known of that.
  public var damage: String?

  /// Whether it maps more than its quota, which was set, or rolled back to, after that was written. It may then map no more.
  public var isOverQuota: Bool { quota.map { mapped > $0 } ?? false }

  /// Whose space a volume's is, in bytes.
  public struct Space: Codable, Sendable, Hashable {
    /// Data that nobody else has: with `nodes`, what comes back when the volume is deleted.
    public var exclusive: UInt64
    /// Data that others have as well.
    public var shared: UInt64
    /// Nodes of its tree that nobody else has.
    public var nodes: UInt64
  }
}

/// One answer of a list.
public struct VolumeList: Codable, Sendable, Hashable {
  public var volumes: [VolumeInfo]
  /// What to ask for next, as `after`; nil where this is the end.
  public var next: String?

  public init(volumes: [VolumeInfo], next: String?) {
    self.volumes = volumes
    self.next = next
  }
}

/// What a deletion deleted, or would delete.
public struct DeletionResult: Codable, Sendable, Hashable {
  /// All names, those of snapshots that went with their volumes included.
  public var deleted: [String]
  /// How many bytes come back at least: those that none but one of them has. What several of them share and nobody else has comes
  /// back as well. Nothing is counted of what cannot be read as a whole. Only of a dry run, since it means reading their trees.
  public var bytes: UInt64?
  /// What of it does not give its space back, since it cannot be read; only where that was waited for, and nil where nothing is so.
  public var damaged: [Damaged]?

  /// Something that is deleted, and keeps its space.
  public struct Damaged: Codable, Sendable, Hashable {
    public var name: String
    /// What is wrong with it.
    public var text: String
    /// How many bytes stay in use at most: those that it still maps, shared ones included.
    public var bytes: UInt64

    public init(name: String, text: String, bytes: UInt64) {
      self.name = name
      self.text = text
      self.bytes = bytes
    }
  }

  public init(deleted: [String], bytes: UInt64? = nil, damaged: [Damaged]? = nil) {
    self.deleted = deleted
    self.bytes = bytes
    self.damaged = damaged
  }
}

/// Snapshots that were taken.
public struct SnapshotList: Codable, Sendable, Hashable {
  public var snapshots: [VolumeInfo]
}

/// One answer of a map.
public struct VolumeMap: Codable, Sendable, Hashable {
  public var extents: [Extent]
  /// Where to go on, as `offset`; nil where this is the end.
  public var next: UInt64?

  /// A stretch of one kind.
  public struct Extent: Codable, Sendable, Hashable {
    public var offset: UInt64
    public var length: UInt64
    public var kind: VolumeExtent.Kind
    /// Where the data is on the device, in bytes; only of data, and only where the store is not in memory.
    public var physical: UInt64?
  }
}

/// One answer of a diff.
public struct VolumeDiff: Codable, Sendable, Hashable {
  /// What changed; what is between them did not.
  public var extents: [Extent]
  /// Where to go on, as `offset`; nil where this is the end.
  public var next: UInt64?

  /// A stretch that changed.
  public struct Extent: Codable, Sendable, Hashable {
    public var offset: UInt64
    public var length: UInt64
    public var kind: Kind
  }

  /// What a stretch became.
  public enum Kind: String, Codable, Sendable {
    case data, zero
  }
}

extension VolumeInfo {
  /// Whether a new volume or snapshot could have this name: ASCII that means nothing to a shell. Stores may have others.
  package static func canBeNew(_ name: String) -> Bool { VolumeName.isForNew(name) }

  /// A warning for the user who chose the size of the volume; nil where all clients can use all of it.
  public var sizeWarning: String? { Self.sizeWarning(size, of: name) }

  static func sizeWarning(_ size: UInt64, of name: String) -> String? {
    size % 512 == 0
      ? nil
      : "the size of '\(name)', \(size) bytes, is no multiple of 512, and QEMU cannot write to the last \(size % 512) of them"
  }
}
