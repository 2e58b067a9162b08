internal import ArgumentParser
internal import Lacuna

struct Create: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Make a volume, and the store where there is none.",
    usage: "lacuna create STORE --size SIZE [--volume NAME] [options]",
    discussion: """
      A volume takes space only for what is written to it. The block size and the journal are those of a new store.

      Examples:
        lacuna create s.lacuna --volume vm1 --size 10G
        lacuna create s.lacuna --volume vms/web1 --size 1T --quota 200G
        lacuna create big.lacuna --size 100T --block-size 64K --journal 256M
        lacuna create /dev/sdx --size 10G
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Option(help: ArgumentHelp("Its name (default in a new store: disk).", valueName: "name"))
  var volume: String?

  @Option(help: "Its size: 512M, 10G, 1.5T.", transform: readByteCount)
  var size: ByteCount

  @Option(help: ArgumentHelp("The most bytes that it may map.", valueName: "size"), transform: readBound)
  var quota: ByteCount?

  @Option(help: ArgumentHelp("The bytes that are reserved for it.", valueName: "size"), transform: readBound)
  var reservation: ByteCount?

  @Flag(help: "Writes to it are refused.")
  var readOnly = false

  @Option(
    help: ArgumentHelp("Block size of a new store, 4K (default) to 64K.", valueName: "size"), transform: readByteCount)
  var blockSize: ByteCount?

  @Option(
    help: ArgumentHelp("Journal of a new store, n * 64K (default: 16M).", valueName: "size"), transform: readByteCount)
  var journal: ByteCount?

  @Option(
    help: ArgumentHelp("Size that the new store's file stays within, or none.", valueName: "size"), transform: readBound
  )
  var limit: ByteCount?

  @Flag(help: "Make a new store in place of whatever a block device holds.")
  var force = false

  @OptionGroup var common: CommonOptions

  private var describesNewStore: Bool { blockSize != nil || journal != nil || limit != nil }

  func run() throws {
    if try makesNewStore() {
      let info = try makeStore()
      try show(info) {
        "Made the store \(target.store.visible) with the volume \($0.name.visible), \(HumanReadable.exactBytes($0.size))\n"
      }
      return warn(of: info, isNewStore: true)
    }
    if describesNewStore || volume == nil {
      // What is no store is not asked for the name of a volume: opening it says what it is.
      try withStore(.reading) { _ in }
    }
    guard !describesNewStore else {
      throw Failure(
        "\(target.store) is there already, and --block-size, --journal and --limit are for new stores; leave them out")
    }
    guard let volume else {
      throw Failure("\(target.store) is there already; name the volume to make in it with --volume")
    }
    let method = CreateVolume(
      name: volume, size: size.bytes, readOnly: readOnly, quota: quota?.bytes, reservation: reservation?.bytes)
    let info = try call(method, for: .writing)
    try show(info) { "Made the volume \($0.name.visible), \(HumanReadable.exactBytes($0.size))\n" }
    warn(of: info, isNewStore: false)
  }

  private func warn(of volume: VolumeInfo, isNewStore: Bool) {
    if let warning = volume.sizeWarning { Terminal.writeWarning(warning) }
    if isNewStore { warnOfSocket() }
  }

  /// Warns of a socket that is where the new store's would be.
  private func warnOfSocket() {
    let socket = ControlSocket.path(forStore: target.store)
    do throws(LacunaError) {
      _ = try ControlClient(path: socket)
      Terminal.writeWarning(
        "a server of another store answers on \(socket), maybe of one that was moved from here while it was served")
    } catch {
      // Nobody listens there, as it should be.
      if error.code == .untrusted { Terminal.writeWarning(error.description) }
    }
  }

  /// Whether there is no store yet, or another one takes its place.
  private func makesNewStore() throws -> Bool {
    guard common.control == nil else { return false }
    switch try StorePlace(at: target.store) {
    case .nothing: return true
    case .blockDevice(let hasStore): return force || !hasStore
    case .file where force:
      throw Failure("\(target.store) is no block device, and --force is for these; remove it first")
    case .file: return false
    }
  }

  /// Makes the store with its first volume, both or none.
  private func makeStore() throws -> VolumeInfo {
    var options = StoreOptions()
    options.path = StoreFile.absolute(target.store)
    options.replacesContents = force
    options.logger = common.logger
    options.volumeName = volume
    options.byteCount = size.bytes
    options.blockByteCount = blockSize?.bytes
    options.journalByteCount = journal?.bytes
    options.storedLimitByteCount = limit?.bytes
    options.volumeIsReadOnly = readOnly
    options.quotaByteCount = quota?.bytes
    options.reservationByteCount = reservation?.bytes
    let store: Store
    do { store = try Store(options) } catch { throw error.explained(store: target.store) }
    let name = volume ?? StoreOptions.defaultVolumeName
    do {
      let info = try store.call(GetVolumeInfo(name: name))
      try store.close()
      return info
    } catch {
      try? store.close()
      throw error
    }
  }
}
