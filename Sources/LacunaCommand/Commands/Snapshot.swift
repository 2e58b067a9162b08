internal import ArgumentParser
internal import Lacuna

struct Snapshot: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Take snapshots: several names, one instant.",
    usage: "lacuna snapshot STORE VOLUME@NAME ... [options]",
    discussion: """
      A snapshot is a whole disk by itself, which cannot be written to. It takes no time and no space, and later only the
      space of what its volume no longer has. Clients read it as the export VOLUME@NAME, and write to a throwaway copy of it
      as VOLUME@NAME+.

      Examples:
        lacuna snapshot s.lacuna vm1@monday
        lacuna snapshot s.lacuna db/data@now db/log@now
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "Names of snapshots: VOLUME@NAME.", completion: .volumeNames)
  var names: [String]

  @OptionGroup var common: CommonOptions

  func run() throws {
    try show(call(CreateSnapshots(names: names), for: .writing)) { result in
      result.snapshots.map { "Took \($0.name.visible), \(HumanReadable.bytes($0.size))\n" }.joined()
    }
  }
}
