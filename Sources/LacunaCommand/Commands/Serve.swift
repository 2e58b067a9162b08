internal import ArgumentParser
internal import Lacuna

struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a store over NBD, with nbdkit.",
    usage: "lacuna serve STORE [options] [-- NBDKIT-OPTION ...]",
    discussion: """
      Listens on the Unix socket STORE.nbd, which only your user may open, or with --port on 127.0.0.1: never on other
      addresses. It becomes nbdkit, so its process ends when the server does. Behind -- come nbdkit's own options and
      more parameters of the plugin (nbdkit-lacuna-plugin(1)). A service manager may pass in sockets instead, as systemd's
      socket units do.

      Examples:
        lacuna serve s.lacuna
        lacuna serve s.lacuna --background -- --pidfile s.pid cache=1G
        lacuna serve s.lacuna --read-only --port 10809
      """)

  @OptionGroup var target: StoreArgument

  @Flag(help: "Let nobody write.")
  var readOnly = false

  @Flag(help: "Come back when it listens, and leave it running.")
  var background = false

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"), completion: .file())
  var socket: String?

  @Option(help: ArgumentHelp("Listen on this TCP port of 127.0.0.1.", valueName: "port"))
  var port: UInt16?

  @Option(help: ArgumentHelp("The default export.", valueName: "volume"), completion: .volumeNames)
  var volume: String?

  @Option(help: ArgumentHelp("Control socket (default: STORE.sock), or off.", valueName: "path"), completion: .file())
  var control: String?

  @Flag(name: [.customShort("n"), .long], help: "Only print the command line of nbdkit.")
  var dryRun = false

  @Argument(parsing: .postTerminator, help: "Options of nbdkit, parameters of the plugin.")
  var arguments: [String] = []

  func validate() throws {
    if socket != nil && port != nil { throw ValidationError("--socket and --port exclude each other") }
    if port == 0 { throw ValidationError("--port takes a number from 1 to 65535") }
    if let option = arguments.first(where: NBDKit.choosesWhereToListen) {
      throw ValidationError("'\(option)' is not for here; --socket and --port choose where to listen")
    }
  }

  private func listenAddress() throws -> ListenAddress {
    let passedCount = try PassedSockets.count()
    guard passedCount == 0 else {
      let own = [("--socket", socket != nil), ("--port", port != nil), ("--background", background)]
      if let (option, _) = own.first(where: \.1) {
        throw ValidationError("\(option) is not for a process that was given its sockets (LISTEN_FDS); leave it out")
      }
      return .passed(count: passedCount)
    }
    if let port { return .loopback(port: port) }
    return .unixSocket(try NBDSocket.path(socket ?? "\(target.store).nbd"))
  }

  func run() throws {
    guard StoreFile.exists(target.store) else {
      throw Failure("there is no store \(target.store); 'lacuna create \(target.store) --size SIZE' makes one")
    }
    let nbdkit = try NBDKit.find()
    let plugin = try nbdkit.plugin()
    var options = background ? [] : ["--foreground"]
    if readOnly { options.append("--readonly") }
    var parameters = ["store=\(target.store)", "create=false"]
    if let volume { parameters.append("volume=\(volume)") }
    if let control { parameters.append("control=\(control)") }
    let address = try listenAddress()
    let line = options + [plugin] + parameters + arguments + address.options
    if dryRun { return try Terminal.write(([nbdkit.path] + line).map(\.shellQuoted).joined(separator: " ") + "\n") }
    if case .unixSocket(let path) = address { try NBDSocket.removeLeftOver(path) }
    if background {
      try Terminal.write("\(address.place)\n")
    } else {
      Terminal.writeMessage("Serving at \(address.place)\n")
    }
    try nbdkit.become(line)
  }
}
