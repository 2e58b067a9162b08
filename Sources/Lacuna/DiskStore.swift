internal import Bytes
internal import Devices
internal import ExtentFS
internal import SystemPackage

/// An open store in a file or on a block device.
///
/// It holds no volume open by itself. Lock order: `throwaways.opening`, then the engine's; the others are for a moment only.
final class DiskStore: Sendable {
  /// The absolute path, as far as the caller gave one.
  let path: String
  /// What the user should know.
  let warnings: [String]
  /// Why nobody may write, where that is for reasons of the store itself.
  let refusalOfWriting: LacunaError?
  /// Whether writes to it are refused.
  let isReadOnly: Bool
  /// Whether that is only because it was opened to be looked at: what it says of itself is then what it would say if it had
  /// been opened for writing.
  let couldBeWritten: Bool
  /// The export that the empty name stands for while this process serves the store; nil for the store's own default.
  let servedDefault: String?
  /// The limit of this opening alone, in bytes; nil where it has none.
  let openingLimitByteCount: UInt64?
  let engine: Engine
  let device: FileDevice
  let gates: CallGates
  /// When the store was opened.
  let opening = ContinuousClock.now
  let throwaways = Throwaways()
  /// How many clients each inode has.
  let clients = Locked<[UInt64: Int]>(rank: .storeTable, [:])
  /// Whether this process answers others about the store.
  let isServing = Locked(rank: .storeTable, false)
  /// Ends this process, where it serves the store.
  let endServing: (@Sendable () throws(LacunaError) -> Int32)?
  let operations = OperationTotals()
  /// When the catalog was last brought up to date.
  private let upToDate = Locked(rank: .catalogRefresh, ContinuousClock.now - .seconds(1))

  /// Opens the store at `path`; makes it where nothing is there, and the volume as well, as far as `options` say so.
  ///
  /// What is there and is no store is never written to.
  init(at path: String, _ options: StoreOptions, _ gates: CallGates) throws(LacunaError) {
    guard !path.isEmpty else { throw LacunaError(.invalidParameter, "the path of the store is empty") }
    // `FilePath` would drop the slash, and another file be meant.
    guard !path.hasSuffix("/") else {
      throw LacunaError(
        .invalidParameter,
        "\(path) is the path of a folder, by the slash at its end; a store is a file or a block device")
    }
    let opened = try StoreOpening.open(FilePath(path), options)
    self.path = path
    self.gates = gates
    engine = opened.engine
    device = opened.device
    isReadOnly = opened.isReadOnly
    couldBeWritten = opened.couldBeWritten
    warnings = opened.warnings
    refusalOfWriting = opened.refusalOfWriting
    servedDefault = options.volumeName
    endServing = options.endServing
    openingLimitByteCount = options.limitByteCount
  }

  /// Starts the thread for checkpoints.
  func startBackgroundWork() throws(LacunaError) {
    try onDisk { () throws(ExtentFSError) in
      if isReadOnly { try engine.startLog() } else { try engine.startCheckpoints() }
    }
  }

  /// The name of the export that the empty name stands for; nil where there is none.
  var defaultName: String? {
    get throws(LacunaError) {
      if let servedDefault { return servedDefault }
      return try onDisk { () throws(ExtentFSError) in try engine.defaultName }
    }
  }

  /// Sees to it that what the catalog counts is what is mapped now. Where it cannot be, on a store that has failed or has no room
  /// for a checkpoint, it stays as of the last checkpoint; the engine remembers a failure and every later write throws it.
  func bringUpToDate() {
    guard !isReadOnly else { return }
    upToDate.withLock {
      try? engine.checkpoint(); $0 = .now
    }
  }

  /// As `bringUpToDate`, but once in a second at most: for callers that look again and again.
  func bringUpToDateSometimes() {
    if upToDate.withLock({ ContinuousClock.now - $0 >= .seconds(1) }) { bringUpToDate() }
  }

  /// Gives the host back what became free since the store was opened.
  func giveBackSpace() throws(LacunaError) {
    guard !isReadOnly else { return }
    try onDisk { () throws(ExtentFSError) in try engine.trim(leaving: 0) }
  }

  /// Merges what is left in the journal, and closes the file, also where that fails. No call is running, and none follows.
  func close() throws(LacunaError) {
    let closing = Result { () throws(LacunaError) in try onDisk { () throws(ExtentFSError) in try engine.close() } }
    do { try device.close() } catch { throw LacunaError(error) }
    try closing.get()
  }
}

extension Engine {
  /// The name of the default volume; nil where there is none.
  var defaultName: String? {
    get throws(ExtentFSError) {
      guard let inode = defaultInode, let record = try volumeRecord(of: inode), !record.isTransient else { return nil }
      return record.name
    }
  }
}

/// Runs what the engine does, and gives its errors the form that clients get.
@inline(__always)
func onDisk<Result>(_ body: () throws(ExtentFSError) -> Result) throws(LacunaError) -> Result {
  do { return try body() } catch { throw LacunaError(error) }
}
