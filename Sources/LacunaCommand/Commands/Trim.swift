internal import ArgumentParser
internal import Lacuna

struct Trim: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Return unused space to the host.",
    usage: "lacuna trim STORE [options]",
    discussion: """
      A store that is served returns free space to the host by itself, when no client uses it. This does it now, also while clients
      are busy: it asks the file system where it holds storage for the store, and discards what is free there, in pieces of 64 KiB,
      and what deleted volumes had. A block device, which cannot tell what it holds, is told of all that is free.

      Examples:
        lacuna trim s.lacuna
        lacuna trim s.lacuna --json
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(try call(TrimStore(), for: .writing)) { result in
      let bytes = HumanReadable.exactBytes(result.bytes)
      return result.exact ? "The host got back \(bytes)\n" : "The device was told that \(bytes) are free\n"
    }
  }
}
