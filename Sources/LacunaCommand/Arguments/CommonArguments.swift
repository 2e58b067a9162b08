internal import ArgumentParser
internal import Logging

// `Lacuna` has a property wrapper of this name too.
typealias Flag = ArgumentParser.Flag

/// The store that a verb is about.
struct StoreArgument: ParsableArguments {
  @Argument(help: "The store: a file or a block device.", completion: .file())
  var store: String
}

/// What all verbs understand that ask a store.
struct CommonOptions: ParsableArguments {
  @Flag(help: "Print JSON, with sizes in bytes.")
  var json = false

  @Option(
    help: ArgumentHelp("Show progress on standard error.", valueName: "style"),
    completion: .list(ProgressStyle.allCases.map(\.rawValue)))
  var progress = ProgressStyle.auto

  @Flag(help: "Show the log of the store on standard error.")
  var verbose = false

  @Option(
    help: ArgumentHelp("Ask the server of this control socket.", valueName: "socket"), completion: .file())
  var control: String?

  /// Where the log of a store goes that this process opens.
  var logger: Logger {
    Logger(label: "lacuna", factory: { _ in verbose ? StandardErrorLog() as any LogHandler : SwiftLogNoOpLogHandler() })
  }
}

/// The yes to what destroys data.
struct YesOption: ParsableArguments {
  @Flag(name: [.short, .long], help: "Do not ask before destroying data.")
  var yes = false
}
