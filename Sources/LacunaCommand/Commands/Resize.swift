internal import ArgumentParser
internal import Lacuna

struct Resize: Verb {
  static let configuration = CommandConfiguration(
    abstract: "Change the size of a volume.",
    usage: "lacuna resize STORE NAME SIZE [options]",
    discussion: """
      A larger volume has zeroes at its end. What is past the end of a smaller one is lost, so it asks first, and is
      refused while clients are connected, unless --force is given. A smaller size is one of whole blocks: a multiple of
      4096 bytes, or of the block size that the store was made with. Connected clients keep the size they were told.

      Examples:
        lacuna resize s.lacuna vm1 20G
        lacuna resize s.lacuna vm1 +512M
        lacuna resize s.lacuna vm1 -1G --yes
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @Argument(help: "The volume.", completion: .volumeNames)
  var name: String

  @Argument(help: "The new size, or by how much it grows (+) or shrinks (-).", transform: readSizeChange)
  var size: SizeChange

  @Flag(help: "Make it smaller also while clients are connected.")
  var force = false

  @Flag(
    name: [.customShort("y"), .customLong("yes"), .customLong("shrink")], help: "Do not ask before making it smaller.")
  var yes = false

  @OptionGroup var common: CommonOptions

  /// The command line with a size such as -1G after a --, where the parser takes it for no option.
  static func withoutDashes(_ arguments: [String]) -> [String] {
    guard arguments.first == configuration.commandName ?? _commandName, !arguments.contains("--"),
      let index = arguments.firstIndex(where: { $0.first == "-" && $0.dropFirst().first?.isWholeNumber == true })
    else { return arguments }
    var rest = arguments
    let size = rest.remove(at: index)
    return rest + ["--", size]
  }

  func run() throws {
    let info = try withStore(.writing) { store in
      let old = try store.call(GetVolumeInfo(name: name)).size
      guard let new = size.applied(to: old) else {
        throw Failure(
          "\(name) has \(HumanReadable.exactBytes(old)), which cannot change by that much; give the new size itself")
      }
      if new < old {
        try Confirmation.ask(
          "Making \(name) smaller, from \(old) to \(new) bytes, loses its end",
          isGiven: yes)
      }
      // What was reckoned from the old size, or asked with it, is not done to another one.
      let isBound = size.isRelative || new < old
      return try store.call(
        ResizeVolume(name: name, size: new, from: isBound ? old : nil, shrink: new < old, force: force))
    }
    try show(info) {
      "Resized \($0.name.visible) to \(HumanReadable.exactBytes($0.size))\n"
        + ($0.clients == 0
          ? ""
          : "\(HumanReadable.count($0.clients, "client")) of it keep the size they were told until they connect again\n")
    }
    if let warning = info.sizeWarning { Terminal.writeWarning(warning) }
  }
}
