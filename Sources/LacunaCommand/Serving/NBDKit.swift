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
}
