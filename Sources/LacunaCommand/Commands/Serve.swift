internal import ArgumentParser
internal import Glibc
internal import Lacuna

struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serve a store over NBD, with nbdkit.",
    usage: "lacuna serve STORE [options] [-- NBDKIT-OPTION ...]",
    discussion: """
      Listens on the Unix socket STORE.nbd, which only your user may open, or a port. Where nbdkit dies, another one takes
      its place. Behind -- come options of nbdkit and more parameters of the plugin (nbdkit-lacuna-plugin(1)). Without
      STORE, they say what to serve, and socket and log are in a new folder.

      Examples:
        lacuna serve s.lacuna
        lacuna serve s.lacuna --background -- cache=1G
        lacuna serve s.lacuna --port 10809 --tls /etc/pki/lacuna
        lacuna serve -- memory=1G
      """.unwrapped)

  @Argument(help: "The store: a file or a block device.", completion: .file())
  var store: String?

  @Flag(help: "Refuse all writes.")
  var readOnly = false

  @Flag(help: "Come back when it serves, and leave it running.")
  var background = false

  @Flag(help: "End when nbdkit dies.")
  var noRestart = false

  @Option(help: ArgumentHelp("The Unix socket to listen on.", valueName: "path"), completion: .file())
  var socket: String?

  @Option(
    help: ArgumentHelp(
      "Listen on this TCP port of 127.0.0.1, where every user of the machine may read and write all: with --tls or --anyone.",
      valueName: "port"))
  var port: UInt16?

  @Option(help: ArgumentHelp("The default export.", valueName: "volume"), completion: .volumeNames)
  var volume: String?

  @OptionGroup var exports: ExportArguments

  @OptionGroup var access: ClientArguments

  @Flag(help: "Listen in a folder that other users may write to.")
  var sharedFolder = false

  @Option(help: ArgumentHelp("Control socket (default: STORE.sock), or off.", valueName: "path"), completion: .file())
  var control: String?

  @Option(help: ArgumentHelp("Write the process to end here, once it serves.", valueName: "file"), completion: .file())
  var pidfile: String?

  @Option(
    help: ArgumentHelp("With --background: the log (default: STORE.log).", valueName: "file"), completion: .file())
  var log: String?

  @Flag(name: [.customShort("n"), .long], help: "Only print a command line of nbdkit.")
  var dryRun = false

  @Argument(parsing: .postTerminator, help: "Options of nbdkit, parameters of the plugin.")
  var arguments: [String] = []

  func validate() throws {
    if store == nil && arguments.isEmpty { throw ValidationError("say which store to serve") }
    if socket != nil && port != nil { throw ValidationError("--socket and --port exclude each other") }
    if port == 0 { throw ValidationError("--port takes a number from 1 to 65535") }
    if log != nil && !background { throw ValidationError("--log is for --background") }
    if let refusal = arguments.compactMap(NBDKitOption.refusal).first ?? access.refusal(of: arguments) {
      throw ValidationError(refusal)
    }
    if port != nil, !access.identifiesClients(arguments), !access.anyone {
      throw ValidationError(
        "every user of this machine could use a port to \(rights); add --tls PATH, so that they need a certificate or a key, or --anyone"
      )
    }
  }

  func run() throws {
    if let store, !StoreFile.exists(store) {
      throw Failure("there is no store \(store); 'lacuna create \(store.shellQuoted) --size SIZE' makes one")
    }
    let encryption = try access.encryption()
    let service = try makeService(encryption)
    let passedCount = try PassedSockets.count()
    if passedCount > 0 { return try serve(service, onPassedSockets: passedCount) }
    if access.anyone, port == nil, encryption == nil {
      throw ValidationError(
        "--anyone is for --port, and for --tls with a folder; a Unix socket is for your own user alone")
    }
    if dryRun { return try printCommand(service, try address(in: PrivateFolder(path: "/tmp/lacuna.XXXXXX"))) }

    let folder = store == nil ? try PrivateFolder.make() : nil
    do {
      try serve(service, on: try address(in: folder), in: folder, encryption)
    } catch {
      folder?.remove(withLog: false)
      throw error
    }
  }

  // MARK: What and where

  /// What whoever can connect may do.
  private var rights: String {
    (readOnly ? "read " : "read and write ") + (exports.patterns.isEmpty ? "all volumes" : "what --allow names")
  }

  private func makeService(_ encryption: Encryption?) throws -> Service {
    let nbdkit = try NBDKit.find()
    var parameters = store.map { ["store=\($0)", "create=false"] } ?? []
    if let volume { parameters.append("volume=\(volume)") }
    if let control { parameters.append("control=\(control)") }
    return Service(
      nbdkit: nbdkit, plugin: try nbdkit.plugin(),
      options: (readOnly ? ["--readonly"] : []) + (encryption?.options ?? []),
      parameters: parameters + exports.parameters + access.parameters + arguments)
  }

  private func address(in folder: PrivateFolder?) throws -> ListenAddress {
    if let port { return .loopback(port: port) }
    let beside = store.map { StorePlace.companion(ofStore: $0, suffix: ".nbd") }
    return try .unixSocket(at: socket ?? beside ?? folder?.socket ?? "socket")
  }

  private func printCommand(_ service: Service, _ address: ListenAddress) throws {
    let words = [service.nbdkit.path] + service.arguments(listeningOn: address)
    try Terminal.write(words.map(\.shellQuoted).joined(separator: " ") + "\n")
  }

  // MARK: Serving

  /// Becomes nbdkit, which whoever passed the sockets in starts again.
  private func serve(_ service: Service, onPassedSockets count: Int) throws {
    let own = [
      ("--socket", socket != nil), ("--port", port != nil), ("--background", background), ("--pidfile", pidfile != nil),
    ]
    if let (option, _) = own.first(where: \.1) {
      throw ValidationError("\(option) is not for a process that was given its sockets (LISTEN_FDS); leave it out")
    }
    let isOpen = PassedSockets.includeNetwork(count: count) && !access.identifiesClients(arguments)
    guard !isOpen || access.anyone else {
      throw Failure(
        "a socket that was passed in is no Unix socket, and everybody who reaches it could \(rights); add --tls PATH, so that they need a "
          + "certificate or a key, or --anyone")
    }
    let address = ListenAddress.passed(count: count)
    if dryRun { return try printCommand(service, address) }
    if isOpen || access.anyone { warnOfAnyone("everybody who reaches the socket") }
    Terminal.writeMessage("Serving at \(address.place(isEncrypted: false))\n")
    try service.nbdkit.become(service.arguments(listeningOn: address))
  }

  private func warnOfAnyone(_ who: String) { Terminal.writeWarning("\(who) may \(rights) (--anyone)") }

  private func serve(
    _ service: Service, on address: ListenAddress, in folder: PrivateFolder?, _ encryption: Encryption?
  ) throws {
    let announcement = Announcement(
      what: store ?? service.parameters.joined(separator: " "), address: address, isInMemory: service.isInMemory,
      encryption: encryption)
    if access.anyone { warnOfAnyone(port == nil ? "whoever can connect" : "every user of this machine") }
    if noRestart, let warning = service.nbdkit.warning { Terminal.writeWarning(warning) }
    if let store { try makeFolder(for: store) }
    if case .unixSocket(let path) = address, !sharedFolder {
      try SharedFolder.refuse(forSocket: path, ofStore: store)
    }
    let listener = try ClientListener(on: address)
    guard background else {
      let code = try supervise(service, listener, folder) {
        Terminal.writeMessage(announcement.text + (Terminal.showsErrors ? announcement.hints : ""))
      }
      if code != 0 { throw ExitCode(code) }
      return
    }
    let beside = store.map { StorePlace.companion(ofStore: $0, suffix: ".log") }
    let log = Process.absolute(self.log ?? beside ?? folder?.log ?? "log")
    let process: Int32
    do {
      process = try Background.begin(log: log) { announce in
        try supervise(service, listener, folder) {
          Terminal.writeMessage(announcement.text)
          try announce()
        }
      }
    } catch {
      // Where it has not come to the process that would do so.
      listener.remove()
      throw error
    }
    let ending = store.map { "lacuna stop \($0.shellQuoted)" } ?? "kill \(process)"
    try Terminal.write(announcement.facts(process: process, log: log, ending: ending))
  }

  /// Makes the folder for what is not beside a store, where something goes there.
  private func makeFolder(for store: String) throws {
    if socket != nil || port != nil, log != nil || !background { return }
    try StorePlace.makeFolder(forStore: store)
  }

  /// Serves until that ends, and returns the exit code.
  private func supervise(
    _ service: Service, _ listener: ClientListener, _ folder: PrivateFolder?, announce: @escaping () throws -> Void
  ) throws -> Int32 {
    Process.forbidCoreFiles()
    var (written, code): (OutputFile?, Int32) = (nil, 1)
    defer {
      listener.remove()
      written?.remove()
      folder?.remove(withLog: code == 0)
    }
    var supervisor = Supervisor(
      service, socket: listener.descriptor, restarts: !noRestart, signals: try Signals(), log: try LogRelay()
    ) {
      if let pidfile { written = try OutputFile.writeNumber(to: pidfile) }
      try announce()
    }
    code = try supervisor.run()
    return code
  }
}
