internal import ArgumentParser
internal import Lacuna

struct SetSettings: Verb {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change read-only, quota, reservation, default.",
    usage: "lacuna set STORE [NAME] [options]",
    discussion: """
      A quota is the most that a volume may map; a reservation is space that it will get, however full the store is. The
      default volume is the one that clients get who give no name.

      Examples:
        lacuna set s.lacuna vm1 --quota 20G --reservation 5G
        lacuna set s.lacuna vm1 --quota none --read-only
        lacuna set s.lacuna vm2 --default
      """)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The volume.", completion: .volumeNames)
  var name: String?

  @Flag(inversion: .prefixedNo, help: "Whether nobody can write to it.")
  var readOnly: Bool?

  @Option(help: ArgumentHelp("The most bytes that it may map, or none.", valueName: "size"), transform: readBound)
  var quota: ByteCount?

  @Option(help: ArgumentHelp("Bytes that are promised to it, or none.", valueName: "size"), transform: readBound)
  var reservation: ByteCount?

  @Flag(inversion: .prefixedNo, help: "Make it the default volume, or let there be none.")
  var `default`: Bool?

  @Flag(help: "Make it read-only also while clients may write to it.")
  var force = false

  @OptionGroup var common: CommonOptions

  private var changesVolume: Bool { readOnly != nil || quota != nil || reservation != nil }

  func validate() throws {
    guard changesVolume || `default` != nil else {
      throw ValidationError("say what to set: --read-only, --quota, --reservation or --default")
    }
    if name == nil && (changesVolume || `default` != false) { throw ValidationError("say which volume to change") }
  }

  func run() throws {
    try withStore(.writing) { store in
      guard let name else {
        return try show(store.call(SetStore(defaultVolume: ""))) { _ in "There is no default volume now\n" }
      }
      let change = SetVolume(
        name: name, readOnly: readOnly, quota: quota?.bytes, reservation: reservation?.bytes, isDefault: `default`,
        force: force)
      try show(store.call(change), \.settings)
    }
  }
}
