internal import ArgumentParser
internal import Lacuna

struct Info: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Show what a store is, or a volume in it.",
    usage: "lacuna info STORE [NAME] [options]",
    discussion: """
      Examples:
        lacuna info s.lacuna
        lacuna info s.lacuna vm1@monday --json
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "A volume or a snapshot.", completion: .volumeNames)
  var name: String?

  @OptionGroup var common: CommonOptions

  func run() throws {
    if let name {
      try show(call(GetVolumeInfo(name: name, space: true), for: .reading), \.text)
    } else {
      try show(call(GetStoreInfo(), for: .reading), \.text)
    }
  }
}
