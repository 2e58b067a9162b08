import ExtentFS
import Glibc

/// What a workload for a hunt of power cuts is like.
struct CrashShape: Sendable {
  var name = "engine"
  var stepCount = 150
  static let blockByteCount = 1024
  /// What a write is a multiple of: half a block makes writes of parts of blocks.
  var unit = 1024
  var limitByteCount: UInt64 = 3 << 20
  var diskByteCount = 400 * 1024
  /// The first one is there from the start; the others are made on the way.
  var volumeCount = 1
  /// The longest run of bytes that one step changes.
  var longestByteCount = 40 * 1024
  /// Whether the store may be too small for all volumes, so that writes fail.
  var mayBeFull = false
  /// Whether space that has become free goes back to the host, as part of a step.
  var trims = false
  /// Whether calls may fail because the device does, or did.
  var mayFail = false
  /// The error number that a failing device has; any for nil.
  var errno: Int32?
  var skipsDataVerification = false
  /// How many nodes a step of a deletion visits; as usual for nil.
  var deletionStepNodeCount: Int?

  /// Writes of parts of blocks.
  static let parts = CrashShape(name: "engine-parts", unit: 512)
  /// Several volumes, some made between writes to others.
  static let volumes = CrashShape(name: "engine-volumes", unit: 512, diskByteCount: 150 * 1024, volumeCount: 4)
  /// A store with room for less than the volume.
  static let full = CrashShape(
    name: "engine-full", stepCount: 200, limitByteCount: 620 << 10, diskByteCount: 400 * 1024, mayBeFull: true)

  /// Processes that die at any call.
  static let deaths = CrashShape(name: "engine-deaths", unit: 512, volumeCount: 2, mayFail: true)

  /// A host that has no room now and then, for what it had room for before.
  static let short = CrashShape(
    name: "engine-short", unit: 512, diskByteCount: 200 * 1024, volumeCount: 2, mayBeFull: true, trims: true,
    mayFail: true,
    errno: ENOSPC)

  /// A device that is short at first, and may become longer by one step of growth now and then.
  static let growing = CrashShape(
    name: "engine-growing", stepCount: 120, limitByteCount: 4 << 20, diskByteCount: 2600 * 1024,
    longestByteCount: 200 * 1024, mayBeFull: true)

  /// Long trims, so that whole pieces of the device go back to the host.
  static let trimming = CrashShape(
    name: "engine-trimming", stepCount: 80, limitByteCount: 6 << 20, diskByteCount: 2400 * 1024,
    longestByteCount: 100 * 1024, trims: true)

  /// Several threads on two volumes, whose flushes are served by one sync.
  static let writers = CrashShape(
    name: "engine-writers", stepCount: 24, unit: 512, diskByteCount: 200 * 1024, volumeCount: 2,
    longestByteCount: 16 * 1024)

  var options: EngineOptions {
    var options = EngineOptions()
    options.limitByteCount = limitByteCount
    options.cacheByteCount = 1 << 20
    if let deletionStepNodeCount { options.deletionStepNodeCount = deletionStepNodeCount }
    options.verifiesRecoveredData = !skipsDataVerification
    return options
  }

  var maximumByteCount: UInt64 { limitByteCount }

  /// Whether a change of a volume may end like this.
  func allows(_ error: ExtentFSError) -> Bool {
    error.code == .outOfSpace ? mayBeFull : mayFail && allowsDevice(error)
  }

  /// Whether an error is one that the device was made to have, or that follows from an earlier one.
  func allowsDevice(_ error: ExtentFSError) -> Bool {
    if case .device(let cause) = error.code { return errno.map { $0 == cause.errno } ?? true }
    return error.code == .failed
  }
}

extension ExtentFSError {
  /// Whether the device failed, now or earlier.
  var isOfDevice: Bool {
    if case .device = code { return true }
    return code == .failed
  }
}
