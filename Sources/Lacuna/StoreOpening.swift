internal import Devices
internal import ExtentFS
internal import Glibc
internal import SystemPackage

/// What an opening came to.
struct OpenedStore {
  var engine: Engine
  var device: FileDevice
  var isReadOnly: Bool
  var couldBeWritten: Bool
  var warnings: [String]
  var refusalOfWriting: LacunaError?
}

/// The steps from a path to an engine.
struct StoreOpening {
  let path: FilePath
  let options: StoreOptions
  let device: FileDevice
  let isReadOnly: Bool
  /// Whether the store was made just now, and goes where a step fails.
  var isNew = false
  let warnings: [String]
  let refusalOfWriting: LacunaError?

  /// Opens the store, or makes it; with its volume.
  static func open(_ path: FilePath, _ options: StoreOptions) throws(LacunaError) -> OpenedStore {
    var attemptCount = 1
    var refusal: LacunaError?
    var mergesJournal = options.mergesJournal
    var wait: LockWait?
    while true {
      do throws(LacunaError) {
        let opening = try StoreOpening(
          at: path, options, refusingWriting: refusal, reading: mergesJournal ? .scratch : .readOnly)
        let (engine, warnings): (Engine, [String])
        do throws(LacunaError) {
          (engine, warnings) = try opening.openEngine()
        } catch {
          opening.device.abandon()
          guard error.isReasonToReadOnly, opening.device.access != .readOnly, !opening.isNew else { throw error }
          if opening.isReadOnly {
            // What cannot be merged can be read beside the trees.
            mergesJournal = false
          } else {
            // What cannot be written any more may still be read.
            refusal = error
          }
          continue
        }
        return try opening.finish(engine, warnings)
      } catch {
        if error.code == .inUse, options.waitsForLock {
          let current = wait ?? LockWait(forStore: path.string)
          wait = current
          guard current.pause() else { throw current.failure }
          continue
        }
        // Another process that made the same store at the same time was first: its store is there, and is opened.
        guard error.code == .deviceFailed(errno: EEXIST), attemptCount < 10 else { throw error }
        attemptCount += 1
      }
    }
  }

  private func finish(_ engine: Engine, _ warnings: [String]) throws(LacunaError) -> OpenedStore {
    do throws(LacunaError) {
      do throws(LacunaError) {
        try checkShape(of: engine)
        let sizeWarning = options.makesVolume ? try findOrMakeVolume(in: engine) : nil
        do { try device.publish(last: engine.superblockMarks) } catch { throw LacunaError(error) }
        return OpenedStore(
          engine: engine, device: device, isReadOnly: isReadOnly, couldBeWritten: couldBeWritten,
          warnings: self.warnings + warnings + (sizeWarning.map { [$0] } ?? []),
          refusalOfWriting: refusalOfWriting)
      } catch {
        // So that the file is unlocked; what is wrong is known already.
        try? engine.close()
        throw error
      }
    } catch {
      device.abandon()
      throw error
    }
  }

  /// - Parameters:
  ///   - refusal: why the store is opened for reading only, though it could be written to.
  ///   - reading: how the file is opened for reading.
  private init(
    at path: FilePath, _ options: StoreOptions, refusingWriting refusal: LacunaError?, reading: FileDevice.Access
  ) throws(LacunaError) {
    self.path = path
    self.options = options
    refusalOfWriting = refusal
    if let refusal {
      do { device = try FileDevice(opening: path, access: reading) } catch { throw Self.failure(error, path) }
      isReadOnly = true
      warnings = ["\(refusal.description); clients that want to write are refused, unless nbdkit runs with -r"]
      return
    }
    if options.opensReadOnly {
      do { device = try FileDevice(opening: path, access: reading) } catch { throw Self.failure(error, path) }
      (isReadOnly, warnings) = (true, [])
      return
    }
    do throws(DeviceError) {
      device = try FileDevice(opening: path)
      (isReadOnly, warnings) = (false, [])
    } catch {
      switch (error.operation, error.errno) {
      case (.open, ENOENT) where options.createsMissing:
        try Self.requireParameters(path, options)
        // It has its name only when all is there, its volume too, and goes where a step fails.
        do {
          device = try FileDevice(preparing: path)
        } catch {
          guard error.errno == ENOENT else { throw Self.failure(error, path) }
          let folder = path.removingLastComponent()
          throw LacunaError(
            .deviceFailed(errno: ENOENT),
            "\(path) cannot be made, since there is no folder \(folder.isEmpty ? "." : folder)")
        }
        try Self.format(device, options)
        (isReadOnly, warnings, isNew) = (false, [], true)
      case (.open, EACCES), (.open, EPERM), (.open, EROFS):
        do { device = try FileDevice(opening: path, access: reading) } catch { throw Self.failure(error, path) }
        isReadOnly = true
        warnings = ["\(path) cannot be opened for writing, so it is served for reading only"]
      default: throw Self.failure(error, path)
      }
    }
    guard device.isBlockDevice, !isReadOnly, options.createsMissing else { return }
    isNew = try Self.makeStore(on: device, options)
  }

  /// Makes a store on a block device that holds none, or whose contents it may replace. Others are there already.
  private static func makeStore(on device: FileDevice, _ options: StoreOptions) throws(LacunaError) -> Bool {
    let contents: DeviceContents
    do { contents = try DeviceContents(of: device) } catch { throw LacunaError(error) }
    switch contents {
    case .blank: break
    case .store where !options.replacesContents: return false
    case .other(let found) where !options.replacesContents:
      throw LacunaError(
        .invalidParameter,
        "\(device.path) is not blank, but holds \(found); 'lacuna create' with --force makes a store in place of that")
    case .store, .other: break
    }
    // What is refused for other reasons must not cost what the device holds.
    try requireParameters(device.path, options)
    try onDisk { () throws(ExtentFSError) in
      _ = try Engine.geometry(of: formatOptions(options), on: device)
      if options.makesVolume { try VolumeName.check(options.volumeName ?? StoreOptions.defaultVolumeName, .volume) }
    }
    do { try device.startAnew(holdingBack: Int(StoreGeometry.journalOffset)) } catch { throw LacunaError(error) }
    try format(device, options)
    return true
  }

  /// Refuses to make a store without what that takes, or as none can be.
  private static func requireParameters(_ path: FilePath, _ options: StoreOptions) throws(LacunaError) {
    if options.makesVolume {
      guard let byteCount = options.byteCount else {
        throw LacunaError(
          .invalidParameter, "there is no store \(path) yet; to make one, say how large its disk is to be, with size=")
      }
      guard byteCount > 0, byteCount <= UInt64(Int64.max) else {
        throw LacunaError(.invalidParameter, "a disk has from 1 to 2^63 - 1 bytes, not \(byteCount)")
      }
    }
    let blockByteCount = options.blockByteCount ?? StoreOptions.defaultBlockByteCount
    guard StoreOptions.blockByteCounts.contains(blockByteCount) else {
      let all = StoreOptions.blockByteCounts.map { "\($0)" }
      throw LacunaError(
        .invalidParameter,
        "a store has blocks of \(all.dropLast().joined(separator: ", ")) or \(all.last ?? "") bytes, not of \(blockByteCount)"
      )
    }
  }

  private static func formatOptions(_ options: StoreOptions) -> FormatOptions {
    var format = FormatOptions()
    format.blockByteCount = Int(clamping: options.blockByteCount ?? StoreOptions.defaultBlockByteCount)
    format.journalByteCount = options.journalByteCount ?? StoreOptions.defaultJournalByteCount
    format.limitByteCount = options.storedLimitByteCount ?? 0
    format.createdSeconds = UInt64(max(time(nil), 0))
    return format
  }

  private static func format(_ device: FileDevice, _ options: StoreOptions) throws(LacunaError) {
    do { try Engine.format(device, formatOptions(options)) } catch { throw LacunaError(error) }
  }

  /// Whether it is read-only for no other reason than that this was asked for.
  private var couldBeWritten: Bool {
    unsafe options.opensReadOnly && access(path.string, W_OK) == 0
  }

  private func openEngine() throws(LacunaError) -> (Engine, [String]) {
    guard device.byteCount > 0 else {
      throw LacunaError(
        .notAStore, "\(path) is an empty file, not a store; remove it, and a store is made in its place")
    }
    var engineOptions = EngineOptions()
    engineOptions.cacheByteCount = options.cacheByteCount
    engineOptions.limitByteCount = options.limitByteCount
    engineOptions.detectsZeroes = options.detectsZeroes
    engineOptions.acceptsOlderSuperblock = options.acceptsOlderSuperblock
    engineOptions.checkpointSeconds = options.checkpointSeconds
    engineOptions.logger = options.logger
    do throws(ExtentFSError) {
      return device.access == .scratch
        ? try Engine.openScratch(device, engineOptions) : try Engine.open(device, engineOptions, readOnly: isReadOnly)
    } catch {
      var failure = LacunaError(error)
      failure.description = "\(path): \(error)"
      throw failure
    }
  }

  /// Refuses a store that is not what the options say it is.
  private func checkShape(of engine: Engine) throws(LacunaError) {
    if let wanted = options.blockByteCount, wanted != UInt64(engine.blockSize.byteCount) {
      throw LacunaError(
        .invalidParameter, "the store \(path) has blocks of \(engine.blockSize.byteCount) bytes, not of \(wanted)")
    }
    if let wanted = options.journalByteCount, wanted != engine.journalByteCount {
      throw LacunaError(
        .invalidParameter, "the store \(path) has a journal of \(engine.journalByteCount) bytes, not of \(wanted)")
    }
  }

  /// Sees to it that the volume that was asked for is there, and as large as was asked for. A store without one is fine where
  /// none was asked for.
  ///
  /// - Returns: what there is to be said of the size of one that was made.
  private func findOrMakeVolume(in engine: Engine) throws(LacunaError) -> String? {
    do {
      let defaultName = try engine.defaultName
      guard
        let name = options.volumeName ?? defaultName ?? options.byteCount.map({ _ in StoreOptions.defaultVolumeName })
      else { return nil }
      if let found = try engine.findVolume(named: name)?.record {
        guard let wanted = options.byteCount, wanted != found.byteCount else { return nil }
        throw LacunaError(
          .invalidParameter,
          "the volume '\(name)' in \(path) has \(found.byteCount) bytes, not the \(wanted) that size= says; "
            + "leave size= out to serve it as it is")
      }
      // An export that is not stored, such as a throwaway, is looked for when a client asks for it.
      if let special = options.volumeName.flatMap({ try? ExportName($0) }), special.isMade, options.byteCount == nil {
        return nil
      }
      guard let byteCount = options.byteCount, options.createsMissing, !isReadOnly else {
        throw LacunaError(
          .noSuchVolume,
          "there is no volume '\(name)' in \(path)"
            + (options.createsMissing && !isReadOnly ? "; to make it, say how large it is to be, with size=" : ""))
      }
      var attributes = VolumeAttributes()
      if options.volumeIsReadOnly { attributes.isReadOnly = true }
      attributes.quotaByteCount = options.quotaByteCount
      attributes.reservationByteCount = options.reservationByteCount
      engine.closeVolume(
        try engine.createVolume(
          named: name, byteCount: byteCount, createdSeconds: UInt64(max(time(nil), 0)), attributes))
      return VolumeInfo.sizeWarning(byteCount, of: name)
    } catch let error as LacunaError {
      throw error
    } catch let error as ExtentFSError {
      throw LacunaError(error)
    } catch {
      throw LacunaError(.internalFailure, "\(error)")
    }
  }

  private static func failure(_ error: DeviceError, _ path: FilePath) -> LacunaError {
    error.operation == .lock ? LacunaError(.inUse, "\(path) is in use") : LacunaError(error)
  }
}

extension LacunaError {
  /// Whether a store that cannot be opened for writing may be opened for reading.
  fileprivate var isReasonToReadOnly: Bool {
    switch code {
    case .readOnlyFormat, .olderSuperblock, .damaged, .failed, .outOfSpace, .deviceFailed(errno: EIO): true
    default: false
    }
  }
}
