/// `volume.list`: volumes and snapshots, in the order of the bytes of their names.
public struct ListVolumes: StoreMethod {
  public static let name = "volume.list"
  /// The most that one answer holds.
  public static let limitMax = 10_000
  /// Only names that begin so.
  public var prefix: String?
  /// Only these; nil for volumes and snapshots. Throwaways, which have no lasting names, are listed when asked for.
  public var kind: VolumeKind?
  /// Whether ``VolumeInfo/space`` is wanted, which means reading the volumes' trees.
  @Flag public var space: Bool
  /// Only names after this one: `next` of the answer before.
  public var after: String?
  /// How many at most, from 1 to ``limitMax``; nil for ``limitMax``.
  public var limit: Int?

  public init(
    prefix: String? = nil, kind: VolumeKind? = nil, space: Bool = false, after: String? = nil, limit: Int? = nil
  ) {
    self.prefix = prefix
    self.kind = kind
    self.space = space
    self.after = after
    self.limit = limit
  }
}

/// `volume.info`: one volume or snapshot, or a throwaway that is open (`vm1+NAME`).
///
/// Throws `.noSuchVolume`.
public struct GetVolumeInfo: StoreMethod {
  public static let name = "volume.info"
  public var name: String
  /// Whether ``VolumeInfo/space`` is wanted, which means reading the volume's tree.
  @Flag public var space: Bool

  public init(name: String, space: Bool = false) {
    self.name = name
    self.space = space
  }
}

/// `volume.create`: makes an empty volume. The first one of a store becomes its default volume.
///
/// Throws `.nameTaken`; `.invalidParameter` for an invalid name or size; `.outOfSpace` where there is no room for the
/// reservation.
public struct CreateVolume: StoreMethod {
  public static let name = "volume.create"
  public var name: String
  /// Bytes, from 1 to 2^63 - 1.
  public var size: UInt64
  @Flag public var readOnly: Bool
  /// The most bytes that it may map; nil or 0 for no such limit.
  public var quota: UInt64?
  /// The bytes that are reserved for it; nil or 0 for none.
  public var reservation: UInt64?

  public init(
    name: String, size: UInt64, readOnly: Bool = false, quota: UInt64? = nil, reservation: UInt64? = nil
  ) {
    self.name = name
    self.size = size
    self.readOnly = readOnly
    self.quota = quota
    self.reservation = reservation
  }
}

/// `volume.delete`: deletes volumes and snapshots, all or none. The names are gone at once; the space comes back in the
/// background (``GetDeletions``), or before the answer where that is asked for. Reports progress then.
///
/// Throws `.noSuchVolume`; `.busy` where clients are connected to one, unless forced. What is thrown while the space comes back says that
/// the names are gone.
public struct DeleteVolumes: StoreMethod {
  public static let name = "volume.delete"
  public var names: [String]
  /// Also where clients are connected; their requests fail from then on.
  @Flag public var force: Bool
  /// Also the volumes' snapshots, which stay otherwise: those that were taken of them, and not of earlier volumes of the same name.
  @Flag public var snapshots: Bool
  /// Only says what would be deleted, and what would come back.
  @Flag public var dryRun: Bool
  /// Returns when the space of what is deleted here is free again, but for what is damaged (``DeletionResult/damaged``).
  @Flag public var wait: Bool

  public init(
    names: [String], force: Bool = false, snapshots: Bool = false, dryRun: Bool = false, wait: Bool = false
  ) {
    self.names = names
    self.force = force
    self.snapshots = snapshots
    self.dryRun = dryRun
    self.wait = wait
  }
}

/// `volume.rename`: gives a volume or a snapshot another name. A volume's snapshots go with it, those that were taken of it; a
/// snapshot stays one of its volume.
///
/// Throws `.noSuchVolume`, `.nameTaken`, `.invalidParameter`.
public struct RenameVolume: StoreMethod {
  public static let name = "volume.rename"
  public var name: String
  /// The whole new name: of a snapshot, `volume@new`.
  public var to: String

  public init(name: String, to: String) {
    self.name = name
    self.to = to
  }
}

/// `volume.resize`: changes the size of a volume. Clients that are connected keep the size that they were told.
///
/// Throws `.noSuchVolume`; `.invalidParameter` for a smaller size, unless allowed; `.busy` for a smaller size while clients
/// are connected, unless forced, and where it does not have the size ``from``.
public struct ResizeVolume: StoreMethod {
  public static let name = "volume.resize"
  public var name: String
  /// The new size in bytes, from 1 to 2^63 - 1.
  public var size: UInt64
  /// The size that it must have before, for a caller that has decided by that; nil for any.
  public var from: UInt64?
  /// Whether it may become smaller: what is past the new end is lost.
  @Flag public var shrink: Bool
  /// Whether it may become smaller while clients are connected.
  @Flag public var force: Bool

  public init(name: String, size: UInt64, from: UInt64? = nil, shrink: Bool = false, force: Bool = false) {
    self.name = name
    self.size = size
    self.from = from
    self.shrink = shrink
    self.force = force
  }
}

/// `volume.set`: changes attributes of a volume, all in one step. What is nil stays as it is.
///
/// Throws `.noSuchVolume`; `.busy` where clients that may write are connected to what becomes read-only, unless forced;
/// `.outOfSpace` where there is no room for the reservation.
public struct SetVolume: StoreMethod {
  public static let name = "volume.set"
  public var name: String
  public var readOnly: Bool?
  /// The most bytes that it may map; 0 for no such limit.
  public var quota: UInt64?
  /// The bytes that are reserved for it; 0 for none.
  public var reservation: UInt64?
  /// Whether it is the store's default volume. False for one that is not changes nothing.
  public var isDefault: Bool?
  @Flag public var force: Bool

  public init(
    name: String, readOnly: Bool? = nil, quota: UInt64? = nil, reservation: UInt64? = nil, isDefault: Bool? = nil,
    force: Bool = false
  ) {
    self.name = name
    self.readOnly = readOnly
    self.quota = quota
    self.reservation = reservation
    self.isDefault = isDefault
    self.force = force
  }
}

/// `volume.clone`: makes a writable volume with the contents of another one, or of a snapshot.
///
/// Throws `.noSuchVolume`, `.nameTaken`, `.invalidParameter`.
public struct CloneVolume: StoreMethod {
  public static let name = "volume.clone"
  public var source: String
  public var name: String

  public init(source: String, name: String) {
    self.source = source
    self.name = name
  }
}

/// `volume.rollback`: gives a volume the contents, and the size, of one of its snapshots. Newer snapshots stay.
///
/// Throws `.noSuchVolume`; `.invalidParameter` for a snapshot of an earlier volume that had the same name; `.busy` where clients are
/// connected, unless forced.
public struct RollBackVolume: StoreMethod {
  public static let name = "volume.rollback"
  /// The snapshot's whole name, `volume@snapshot`.
  public var snapshot: String
  @Flag public var force: Bool

  public init(snapshot: String, force: Bool = false) {
    self.snapshot = snapshot
    self.force = force
  }
}

/// `volume.promote`: keeps a throwaway that is open as a volume. Its clients go on with it.
///
/// Throws `.noSuchVolume` where no such throwaway is open, `.nameTaken`, `.invalidParameter`.
public struct PromoteVolume: StoreMethod {
  public static let name = "volume.promote"
  /// The export name that its clients used: `vm1@monday+NAME` or `vm1+NAME`.
  public var name: String
  /// The name of the new volume.
  public var to: String

  public init(name: String, to: String) {
    self.name = name
    self.to = to
  }
}

/// `volume.diff`: where the contents of `to` differ from those of `from`, in order, at the grain of a block.
///
/// Throws `.noSuchVolume`.
public struct DiffVolumes: StoreMethod {
  public static let name = "volume.diff"
  /// The most extents that one answer holds.
  public static let limitMax = 10_000
  public var from: String
  public var to: String
  /// Where to begin: 0, or `next` of the answer before.
  public var offset: UInt64?
  /// How many extents at most, from 1 to ``limitMax``; nil for ``limitMax``.
  public var limit: Int?

  public init(from: String, to: String, offset: UInt64? = nil, limit: Int? = nil) {
    self.from = from
    self.to = to
    self.offset = offset
    self.limit = limit
  }
}

/// `volume.map`: what lies where, in order, without gaps.
///
/// Throws `.noSuchVolume`.
public struct MapVolume: StoreMethod {
  public static let name = "volume.map"
  /// The most extents that one answer holds.
  public static let limitMax = 10_000
  public var name: String
  /// Where to begin: 0, or `next` of the answer before.
  public var offset: UInt64?
  /// How many extents at most, from 1 to ``limitMax``; nil for ``limitMax``.
  public var limit: Int?

  public init(name: String, offset: UInt64? = nil, limit: Int? = nil) {
    self.name = name
    self.offset = offset
    self.limit = limit
  }
}

/// `snapshot.create`: takes snapshots of different volumes at one instant, all or none.
///
/// Throws `.noSuchVolume`, `.nameTaken`, `.invalidParameter`.
public struct CreateSnapshots: StoreMethod {
  public static let name = "snapshot.create"
  /// The most snapshots that one call takes.
  public static let namesMax = 10_000
  /// Whole names, `volume@snapshot`, each of another volume.
  public var names: [String]

  public init(names: [String]) { self.names = names }
}
