internal import ArgumentParser
internal import Lacuna

/// The program `lacuna`: reads the command line, runs one verb, and says in one line what went wrong.
@main
struct LacunaCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "lacuna",
    abstract: "Manages stores of thin-provisioned disks, served or not.",
    usage: "lacuna VERB STORE [NAME ...] [options]",
    discussion: """
      Examples:
        lacuna create s.lacuna --volume vm1 --size 10G
        lacuna snapshot s.lacuna vm1@monday
        lacuna serve s.lacuna
      """,
    version: LacunaVersion.current,
    groupedSubcommands: [
      CommandGroup(
        name: "Show", subcommands: [Info.self, List.self, Map.self, Diff.self, Stats.self, Check.self, Dump.self]),
      CommandGroup(
        name: "Change",
        subcommands: [
          Create.self, Resize.self, Rename.self, SetSettings.self, Delete.self, Snapshot.self, Clone.self,
          Rollback.self, Promote.self, Trim.self, Recover.self,
        ]),
      CommandGroup(name: "Serve", subcommands: [Serve.self, Stop.self]),
    ])

  static func main() {
    do {
      try checkVerb()
      var command = try parseAsRoot(Resize.withoutDashes(Array(CommandLine.arguments.dropFirst())))
      try command.run()
    } catch {
      exit(withCode: Report(error).send())
    }
  }

  /// The first word says all; the parser would only call a wrong one unexpected.
  private static func checkVerb() throws {
    guard let word = CommandLine.arguments.dropFirst().first, !word.hasPrefix("-") else { return }
    let verbs = configuration.subcommands.map { $0._commandName } + ["help"]
    guard !verbs.contains(word) else { return }
    throw ValidationError("there is no verb '\(word)'; the verbs are \(verbs.joined(separator: ", "))")
  }

  private static func exit(withCode status: Int32) -> Never { exit(withError: ExitCode(status)) }
}
