internal import ArgumentParser

/// Who may connect to a server, and how many at once.
struct ClientArguments: ParsableArguments {
  @Option(help: ArgumentHelp("At most so many clients at once (default: 100).", valueName: "n"))
  var clients: Int?

  @Option(
    help: ArgumentHelp("With TLS: a folder of certificates, or a file of keys.", valueName: "path"), completion: .file()
  )
  var tls: String?

  @Flag(help: "Let in clients without a certificate or a key.")
  var anyone = false

  func validate() throws {
    if let clients, !(1...10_000).contains(clients) {
      throw ValidationError("--clients takes a number from 1 to 10000")
    }
  }

  /// The plugin's parameters that say the same.
  var parameters: [String] { clients.map { ["clients=\($0)"] } ?? [] }

  /// How connections are encrypted; nil where they are not, or nbdkit's own options say so.
  func encryption() throws -> Encryption? { try tls.map { try Encryption($0, forAnyone: anyone) } }

  /// Why this does not go with the options of nbdkit after `--`; nil where it does.
  func refusal(of arguments: [String]) -> String? {
    guard tls != nil, let own = arguments.first(where: { $0.hasPrefix("--tls") }) else { return nil }
    return "--tls says all that nbdkit needs; leave out '\(own.visible)'"
  }

  /// Whether a client that may connect has to show who it is.
  ///
  /// - Parameter arguments: options of nbdkit, of which `--tls=require` counts, whatever goes with it.
  func identifiesClients(_ arguments: [String]) -> Bool {
    tls != nil || arguments.contains { ["--tls=require", "--tls=required", "--tls=force"].contains($0.lowercased()) }
  }
}
