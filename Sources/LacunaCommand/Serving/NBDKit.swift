internal import Glibc

/// The program nbdkit on this machine.
struct NBDKit {
  /// Its file.
  let path: String

  /// Looks for it where the shell would.
  static func find() throws -> NBDKit {
    let folders = Process.variable("PATH") ?? "/usr/local/bin:/usr/bin:/bin"
    for folder in folders.split(separator: ":", omittingEmptySubsequences: false) {
      let path = folder.isEmpty ? "./nbdkit" : "\(folder)/nbdkit"
      if Process.mayRun(path) { return NBDKit(path: path) }
    }
    throw Failure("there is no nbdkit on the PATH, which does the serving; install it (Debian: apt install nbdkit)")
  }

  /// Looks for the plugin: $LACUNA_PLUGIN, the one that was built or installed with this program, where nbdkit has its plugins.
  func plugin() throws -> String {
    if let path = Process.variable("LACUNA_PLUGIN") {
      guard Process.mayRead(path) else { throw Failure("LACUNA_PLUGIN says \(path), which cannot be read; correct it") }
      // nbdkit takes a name without a slash for a plugin of its own.
      return path.utf8.contains(UInt8(ascii: "/")) ? path : "./\(path)"
    }
    let folder = Process.folderOfProgram()
    let name = "nbdkit-lacuna-plugin.so"
    // As a build leaves it, and as scripts/install does.
    let own = ["\(folder)/\(name)", "\(folder)/lib\(name)", "\(folder)/../lib/lacuna/\(name)"]
    if let path = own.first(where: Process.mayRead) { return path }
    let nbdkits = pluginFolder().map { "\($0)/\(name)" }
    if let nbdkits, Process.mayRead(nbdkits) { return nbdkits }
    throw Failure(
      "there is no plugin \(([own[0], own[2]] + (nbdkits.map { [$0] } ?? [])).joined(separator: ", nor ")); run "
        + "scripts/install, or set LACUNA_PLUGIN to its file")
  }

  /// Where nbdkit has its plugins.
  private func pluginFolder() -> String? { configuration("plugindir") }

  /// What a user who does without restarts should know of this version; nil where there is nothing.
  var warning: String? {
    guard let version = configuration("version") else { return nil }
    let numbers = version.split(separator: ".").map { Int($0.prefix { $0.isASCII && $0.isNumber }) ?? 0 }
    guard numbers.lexicographicallyPrecedes([1, 33, 10]) else { return nil }
    return
      "a client that hangs up in the middle of requests can end nbdkit \(version), which 1.33.10 is the first without"
  }

  /// An entry of nbdkit's configuration.
  private func configuration(_ name: String) -> String? {
    let lines = Process.output(of: "\(path.plainlyQuoted) --dump-config 2>/dev/null").split(separator: "\n")
    return lines.first { $0.hasPrefix("\(name)=") }.map { String($0.dropFirst(name.count + 1)) }
  }

  /// Replaces this process by nbdkit; returns only by an error.
  func become(_ arguments: [String]) throws {
    Process.forbidCoreFiles()
    throw Failure("cannot run \(path): \(Process.replace([path] + arguments))")
  }

  /// Why an argument is not for the nbdkit that `lacuna serve` runs; nil for those that are.
  static func refusal(of argument: String) -> String? {
    // By scalars, as nbdkit sees it: a mark behind a letter is the letter's value.
    let text = argument.unicodeScalars
    func isOption(_ names: [String], _ letters: String) -> Bool {
      if text.starts(with: "--".unicodeScalars) {
        // Long options may be shortened, as getopt_long(3) allows.
        let name = text.dropFirst(2).prefix { $0 != "=" }
        return !name.isEmpty && names.contains { $0.unicodeScalars.starts(with: name) }
      }
      guard text.first == "-" else { return false }
      // Letters without a value may come before it, as in -fp10809.
      let letter = text.dropFirst().drop { "fnrvx".unicodeScalars.contains($0) }.first
      return letter.map { letters.unicodeScalars.contains($0) } ?? false
    }
    let reason: String
    if isOption(["port", "ipaddr", "ip-addr", "unix", "vsock", "single", "oldstyle"], "piUso") {
      reason = "--socket and --port choose where to listen"
    } else if isOption(["pidfile"], "P") {
      reason = "--pidfile FILE, before --, writes the process to end"
    } else if isOption(["run"], "") {
      reason = "clients are run beside the server"
    } else if isOption(["user", "group"], "ug") {
      reason = "run lacuna itself as that user, with runuser(1) for example"
    } else {
      return nil
    }
    return "'\(argument)' is not for here; \(reason)"
  }
}
