internal import Bytes
internal import Devices
internal import ExtentFS
internal import Glibc

/// All inodes of a store at one time.
struct CatalogPicture {
  typealias Entry = (inode: UInt64, record: InodeRecord)

  /// Volumes and snapshots, in the order of the bytes of their names.
  var stored: [Entry] = []
  /// What is deleted and has not given all its space back.
  var deleted: [Entry] = []
  /// The names of what is stored.
  var names: [UInt64: String] = [:]

  init(_ records: [Entry]) {
    for entry in records {
      if entry.record.kind == .deleted {
        deleted.append(entry)
      } else if !entry.record.isThrowaway {
        stored.append(entry)
        names[entry.inode] = entry.record.name
      }
    }
    stored.sort { $0.record.name.precedes($1.record.name) }
  }
}

extension String {
  /// Whether its bytes come before those of `other`.
  func precedes(_ other: String) -> Bool { utf8.lexicographicallyPrecedes(other.utf8) }
}

extension DiskStore {
  /// The catalog as of the last checkpoint.
  func catalog() throws(LacunaError) -> CatalogPicture {
    CatalogPicture(try onDisk { () throws(ExtentFSError) in try engine.volumeRecords() })
  }

  /// What was found that cannot be read.
  private var damage: [StoreInfo.Damage] {
    engine.damage.all.map { StoreInfo.Damage(part: $0.part, text: text(of: $0), inCatalog: $0.isInCatalog) }
  }

  /// What was found of the volume `inode` that cannot be read, whatever its name was then.
  private func damage(of inode: UInt64) -> String? { engine.damage.damage(ofInode: inode).map(text) }

  private func text(of damage: Damage) -> String { "\(damage.facts); \(damage.effect)" }

  /// The store as a whole.
  func information() throws(LacunaError) -> StoreInfo {
    let catalog = try catalog()
    // Where it is written, freeing space has met what cannot be read.
    if isReadOnly { try onDisk { () throws(ExtentFSError) in try engine.findDamagedDeletions() } }
    let figures = engine.usage
    return StoreInfo(
      path: path, uuid: "\(engine.uuid)", version: LacunaVersion.current, protocolVersion: ControlProtocol.version,
      blockSize: UInt64(engine.blockSize.byteCount), journalSize: engine.journalByteCount,
      size: figures.deviceByteCount, used: figures.usedByteCount, free: figures.freeByteCount,
      limit: device.canGrow ? [openingLimitByteCount, figures.limitByteCount].compactMap(\.self).min() : nil,
      storedLimit: figures.limitByteCount, created: figures.createdSeconds, generation: figures.generation,
      features: figures.featureNames,
      volumes: UInt64(catalog.stored.count { $0.record.kind == .volume }),
      snapshots: UInt64(catalog.stored.count { $0.record.kind == .snapshot }),
      throwaways: UInt64(throwaways.all.count), deleted: UInt64(catalog.deleted.count), defaultVolume: try defaultName,
      pid: isServing.withLock { $0 } ? getpid() : nil, readOnly: isReadOnly && !couldBeWritten,
      damage: damage.isEmpty ? nil : damage)
  }

  /// What is called `name`: a volume, a snapshot, or a throwaway that is open.
  func information(of name: String, space: Bool) throws(LacunaError) -> VolumeInfo {
    if let found = try onDisk({ () throws(ExtentFSError) in try engine.findVolume(named: name) }) {
      return try information(of: found, origin: try storedName(of: found.record.origin), space: space)
    }
    if let throwaway = throwaways.named(name).first { return try information(of: throwaway, space: space) }
    throw notStored(name) ?? missing(name)
  }

  /// The name of the volume or snapshot `inode`; nil where it has none, or is gone.
  private func storedName(of inode: UInt64) throws(LacunaError) -> String? {
    guard inode != 0,
      let record = try onDisk({ () throws(ExtentFSError) in try engine.volumeRecord(of: inode) }), !record.isTransient
    else { return nil }
    return record.name
  }

  func information(
    of entry: CatalogPicture.Entry, origin: String?, space: Bool
  ) throws(LacunaError) -> VolumeInfo {
    let (inode, record) = entry
    var (account, damage) = (VolumeInfo.Space?.none, damage(of: inode))
    do throws(LacunaError) {
      if space {
        account = try onDisk { () throws(ExtentFSError) in self.space(try engine.spaceAccount(of: record.name)) }
      }
    } catch {
      // All else can be said.
      guard error.code == .damaged else { throw error }
      damage = damage ?? error.description
    }
    return VolumeInfo(
      name: record.name, kind: record.kind == .snapshot ? .snapshot : .volume, size: record.byteCount,
      mapped: bytes(record.mappedBlocks), reserved: bytes(record.reservedBlocks),
      readOnly: isReadOnly && !couldBeWritten || record.isReadOnly || engine.isDamaged(inode),
      created: record.createdSeconds, origin: origin,
      quota: record.quotaBlocks == 0 ? nil : bytes(record.quotaBlocks),
      reservation: record.reservationBlocks == 0 ? nil : bytes(record.reservationBlocks),
      clients: clients.withLock { $0[inode] ?? 0 }, isDefault: inode == engine.defaultInode,
      space: account, damage: damage)
  }

  /// A throwaway that is open.
  func information(of throwaway: Throwaway, space: Bool) throws(LacunaError) -> VolumeInfo {
    let inode = throwaway.volume.inode
    let record = try onDisk { () throws(ExtentFSError) in try engine.volumeRecord(of: inode) }
    var (account, damage) = (VolumeInfo.Space?.none, damage(of: inode))
    do throws(LacunaError) {
      if space { account = try onDisk { () throws(ExtentFSError) in self.space(try engine.spaceAccount(of: inode)) } }
    } catch {
      // All else can be said.
      guard error.code == .damaged else { throw error }
      damage = damage ?? error.description
    }
    return VolumeInfo(
      name: throwaway.name, kind: .throwaway, size: throwaway.volume.byteCount,
      mapped: bytes(record?.mappedBlocks ?? 0),
      reserved: bytes(record?.reservedBlocks ?? 0), readOnly: false, created: throwaway.createdSeconds,
      origin: try storedName(of: throwaway.origin), quota: nil, reservation: nil,
      clients: clients.withLock { $0[inode] ?? 0 }, isDefault: false, space: account, damage: damage)
  }

  private func space(_ account: SpaceAccount) -> VolumeInfo.Space {
    VolumeInfo.Space(
      exclusive: bytes(account.exclusiveDataCount), shared: bytes(account.sharedDataCount),
      nodes: bytes(account.exclusiveNodeCount))
  }

  /// What so many blocks have, in bytes. A damaged count becomes the largest number.
  func bytes(_ blockCount: UInt64) -> UInt64 {
    let (count, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(engine.blockSize.byteCount))
    return overflow ? .max : count
  }

  func missing(_ name: String) -> LacunaError {
    LacunaError(.noSuchVolume, "there is no \(name.contains("@") ? "snapshot" : "volume") '\(name.beginning(300))'")
  }

  /// What to say where nothing stored is called `name`, though a throwaway may be; nil where that cannot be.
  func notStored(_ name: String) -> LacunaError? {
    guard case .throwaway? = try? ExportName(name) else { return nil }
    let name = name.beginning(300)
    guard throwaways.named(name).isEmpty else {
      return LacunaError(
        .notSupported,
        "'\(name)' is a throwaway, which goes with the last of its clients; info, map and diff show it, and promote keeps it "
          + "as a volume, which can be changed")
    }
    return LacunaError(.noSuchVolume, "no throwaway '\(name)' is open")
  }
}
