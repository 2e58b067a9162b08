internal import ArgumentParser
internal import Lacuna

struct Promote: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Keep a throwaway as a volume.",
    usage: "lacuna promote STORE THROWAWAY NAME [options]",
    discussion: """
      A throwaway is what clients get that open VOLUME+, VOLUME@SNAPSHOT+ or, to share it, VOLUME+NAME and
      VOLUME@SNAPSHOT+NAME; it is gone when the last of them leaves. One with a name can be kept, and its clients go on
      with it. It is served as long as it exists, so it takes a served store.

      Example:
        lacuna promote s.lacuna vm1@monday+trial vm1-trial
      """)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The throwaway's export name.")
  var throwaway: String

  @Argument(help: "The new volume.")
  var name: String

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(call(PromoteVolume(name: throwaway, to: name), for: .writing)) {
      "Kept \(throwaway.printable) as \($0.name.printable), \(HumanReadable.bytes($0.size))\n"
    }
  }
}
