internal import ArgumentParser
internal import Lacuna

struct Clone: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Make a volume from a snapshot or a volume.",
    usage: "lacuna clone STORE SOURCE NAME [options]",
    discussion: """
      The clone shares its blocks with what it was made from until one of them writes. It depends on nothing: what it was
      made from may be deleted.

      Examples:
        lacuna clone s.lacuna vm1@monday vm2
        lacuna clone s.lacuna templates/debian vms/web1
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The snapshot or volume to clone.", completion: .volumeNames)
  var source: String

  @Argument(help: "The new volume.")
  var name: String

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(call(CloneVolume(source: source, name: name), for: .writing)) {
      "Cloned \(source.visible) as \($0.name.visible), \(HumanReadable.bytes($0.size))\n"
    }
  }
}
