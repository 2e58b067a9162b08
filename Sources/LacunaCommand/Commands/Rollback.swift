internal import ArgumentParser
internal import Lacuna

struct Rollback: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Give a volume the contents of one of its snapshots.",
    usage: "lacuna rollback STORE VOLUME@NAME [options]",
    discussion: """
      What the volume has now is lost, unless a snapshot has it too; so it asks first. All snapshots stay, newer ones too.
      It is refused while clients are connected to the volume, unless --force is given.

      Examples:
        lacuna rollback s.lacuna vm1@monday
        lacuna snapshot s.lacuna vm1@before && lacuna rollback s.lacuna vm1@monday --yes
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The snapshot: VOLUME@NAME.", completion: .volumeNames)
  var snapshot: String

  @Flag(help: "Also while clients are connected; they see the change under their feet.")
  var force = false

  @OptionGroup var confirmation: YesOption

  @OptionGroup var common: CommonOptions

  func run() throws {
    let volume = snapshot.split(separator: "@", maxSplits: 1, omittingEmptySubsequences: false)[0]
    let info = try withStore(.writing) { store in
      // So that a wrong name is refused before anything is asked.
      _ = try store.call(GetVolumeInfo(name: snapshot))
      try Confirmation.ask(
        "Rolling \(volume) back to \(snapshot) loses what was written to it since", isGiven: confirmation.yes)
      return try store.call(RollBackVolume(snapshot: snapshot, force: force))
    }
    try show(info) {
      "Rolled \($0.name.visible) back to \(snapshot.visible), \(HumanReadable.bytes($0.size))\n"
    }
  }
}
