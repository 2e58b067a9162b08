internal import ArgumentParser
internal import Lacuna

struct Promote: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Keep a throwaway as a volume.",
    usage: "lacuna promote STORE THROWAWAY NAME [options]",
    discussion: """
      A throwaway is what clients get that open VOLUME+, VOLUME@SNAPSHOT+ or, to share it, VOLUME+NAME and
      VOLUME@SNAPSHOT+NAME; it is gone when the last of them leaves. While it is open it can be kept, and its clients go on
      with it; of those without a name of their own, only one that no other client has beside it. 'lacuna list STORE
      --all' shows those that are open.

      Example:
        lacuna promote s.lacuna vm1@monday+trial vm1-trial
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The throwaway's export name.")
  var throwaway: String

  @Argument(help: "The new volume.")
  var name: String

  @OptionGroup var common: CommonOptions

  func advice(on error: LacunaError) -> String? {
    error.code == .noSuchVolume
      ? "'lacuna list \(target.store.shellQuoted) --type throwaway' shows those that are, while the store is served"
      : error.advice(store: target.store)
  }

  func run() throws {
    try show(call(PromoteVolume(name: throwaway, to: name), for: .writing)) {
      "Kept \(throwaway.visible) as \($0.name.visible), \(HumanReadable.bytes($0.size))\n"
    }
  }
}
