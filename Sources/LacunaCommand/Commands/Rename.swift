internal import ArgumentParser
internal import Lacuna

struct Rename: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Give a volume or a snapshot another name.",
    usage: "lacuna rename STORE NAME NEW-NAME [options]",
    discussion: """
      The snapshots that were taken of a volume go with it. Clients that are connected stay connected.

      Examples:
        lacuna rename s.lacuna vm1 vms/web1
        lacuna rename s.lacuna vm1@monday vm1@november
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The volume or snapshot.", completion: .volumeNames)
  var name: String

  @Argument(help: "Its whole new name.", completion: .volumeNames)
  var newName: String

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(call(RenameVolume(name: name, to: newName), for: .writing)) {
      "Renamed \(name.visible) to \($0.name.visible)\n"
    }
  }
}
