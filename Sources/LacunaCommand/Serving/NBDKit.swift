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

  /// Looks for the plugin: $LACUNA_PLUGIN, beside this program as a build leaves it, where nbdkit has its plugins.
  func plugin() throws -> String {
    if let path = Process.variable("LACUNA_PLUGIN") {
      guard Process.mayRead(path) else { throw Failure("LACUNA_PLUGIN says \(path), which cannot be read; correct it") }
      // nbdkit takes a name without a slash for a plugin of its own.
      return path.contains("/") ? path : "./\(path)"
    }
    let folder = Process.folderOfProgram()
    let beside = ["nbdkit-lacuna-plugin.so", "libnbdkit-lacuna-plugin.so"].map { "\(folder)/\($0)" }
    if let path = beside.first(where: Process.mayRead) { return path }
    let installed = pluginFolder().map { "\($0)/nbdkit-lacuna-plugin.so" }
    if let installed, Process.mayRead(installed) { return installed }
    throw Failure(
      "there is no plugin \(beside[0])\(installed.map { " and no \($0)" } ?? ""); run scripts/install, or set "
        + "LACUNA_PLUGIN to its file")
  }

  /// Where nbdkit has its plugins.
  private func pluginFolder() -> String? {
    let prefix = "plugindir="
    let lines = Process.output(of: "\(path.shellQuoted) --dump-config 2>/dev/null").split(separator: "\n")
    return lines.first { $0.hasPrefix(prefix) }.map { String($0.dropFirst(prefix.count)) }
  }

  /// Replaces this process by nbdkit; returns only by an error.
  func become(_ arguments: [String]) throws {
    Process.forbidCoreFiles()
    throw Failure("cannot run \(path): \(Process.replace([path] + arguments))")
  }

  /// Whether an argument would choose where nbdkit listens.
  static func choosesWhereToListen(_ argument: String) -> Bool {
    if argument.hasPrefix("--") {
      // Long options may be shortened, as getopt_long(3) allows.
      let name = argument.dropFirst(2).prefix { $0 != "=" }
      return !name.isEmpty
        && ["port", "ipaddr", "ip-addr", "unix", "vsock", "single", "oldstyle"].contains { $0.hasPrefix(name) }
    }
    guard argument.hasPrefix("-") else { return false }
    // Letters without a value may come before it, as in -fp10809.
    let first = argument.dropFirst().drop { "fnrvx".contains($0) }.first
    return first.map { "piUso".contains($0) } ?? false
  }
}
