internal import ArgumentParser
internal import Lacuna

struct SetSettings: Verb {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change read-only, quota, reservation, default, limit.",
    usage: "lacuna set STORE [NAME] [options]",
    discussion: """
      A quota is the most that a volume may map; a reservation is space that it will get, however full the store is. The
      default volume is the one that clients get who give no name. The limit is the store's own: the size that its file
      does not grow beyond.

      Examples:
        lacuna set s.lacuna vm1 --quota 20G --reservation 5G
        lacuna set s.lacuna vm1 --quota none --read-only
        lacuna set s.lacuna vm2 --default
        lacuna set s.lacuna --limit 500G
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The volume.", completion: .volumeNames)
  var name: String?

  @Flag(inversion: .prefixedNo, help: "Whether writes to it are refused.")
  var readOnly: Bool?

  @Option(help: ArgumentHelp("The most bytes that it may map, or none.", valueName: "size"), transform: readBound)
  var quota: ByteCount?

  @Option(help: ArgumentHelp("Bytes that are reserved for it, or none.", valueName: "size"), transform: readBound)
  var reservation: ByteCount?

  @Flag(inversion: .prefixedNo, help: "Make it the default volume, or let there be none.")
  var `default`: Bool?

  @Option(
    help: ArgumentHelp("Size that the store's file stays within, or none.", valueName: "size"), transform: readBound)
  var limit: ByteCount?

  @Flag(help: "Make it read-only also while clients may write to it.")
  var force = false

  @OptionGroup var common: CommonOptions

  private var changesVolume: Bool { readOnly != nil || quota != nil || reservation != nil }

  private func checkOptions() throws {
    guard changesVolume || `default` != nil || limit != nil else {
      throw ValidationError("say what to set: --read-only, --quota, --reservation, --default or --limit")
    }
    if name != nil && limit != nil { throw ValidationError("--limit is of the whole store; leave the volume out") }
    if name == nil && (changesVolume || `default` == true) { throw ValidationError("say which volume to change") }
  }

  func run() throws {
    try checkOptions()
    try withStore(.writing) { store in
      guard let name else {
        let change = SetStore(defaultVolume: `default` == nil ? nil : "", limit: limit?.bytes)
        return try show(store.call(change), \.settings)
      }
      let change = SetVolume(
        name: name, readOnly: readOnly, quota: quota?.bytes, reservation: reservation?.bytes, isDefault: `default`,
        force: force)
      try show(store.call(change), \.settings)
    }
  }
}
