import Bytes
import Glibc

/// What nbdkit is to serve: a plugin, its parameters, and options such as filters.
package struct NBDServerCommand: Sendable {
  /// A plugin's name, or the path of its file.
  package var plugin: String
  /// The parameters of the plugin and of the filters, `key=value`; `{directory}` in them stands for the server's
  /// private directory.
  package var parameters: [String]
  /// Options of nbdkit itself, such as `-r` or `--filter=log`.
  package var options: [String]

  /// A program, with its arguments, that starts nbdkit; such as setpriv(1).
  package var launcher: [String] = []

  package init(plugin: String, parameters: [String], options: [String] = []) {
    self.plugin = plugin
    self.parameters = parameters
    self.options = options
  }
}

/// Why a server could not be used: it did not start, or did not end as it should. The text has what it printed.
package struct NBDServerError: Error, CustomStringConvertible {
  package var description: String
}

/// A real nbdkit on a private Unix socket, from `run` until the end of its body.
package final class NBDServer: Sendable {
  /// Longest wait for the socket: loading a plugin takes milliseconds, but the machine may be busy.
  static let startSecondsMax = 30.0
  /// Longest wait for the end after SIGTERM.
  static let stopSecondsMax = 20.0
  /// A server older than this is killed, so that no test waits for ever for an answer.
  static let lifetimeSecondsMax = 120.0

  private let directory: PrivateDirectory
  private let process: ChildProcess
  private let wasKilled = Locked(false)

  /// Where clients connect.
  package var socketPath: String { directory.file("nbd.sock") }
  /// nbdkit's process number while it runs.
  package var pid: Int32? { process.pid }
  /// How the server ended; nil while it runs.
  package var exitStatus: ExitStatus? { process.exitStatus }
  /// All that it printed so far.
  package var standardError: String { directory.text(of: "stderr") }

  /// Starts a server, hands it to `body`, and stops it.
  ///
  /// - Throws: what `body` threw, or `NBDServerError` where the server did not start, died, or did not end with status
  ///   0 within `stopSecondsMax` of SIGTERM. Clients should be closed by then.
  package static func run<Result>(
    _ command: NBDServerCommand, lifetimeSecondsMax: Double = lifetimeSecondsMax, _ body: (NBDServer) throws -> Result
  ) throws -> Result {
    let server = try NBDServer(command, lifetimeSecondsMax: lifetimeSecondsMax)
    defer { server.directory.remove() }
    let result: Result
    do {
      result = try body(server)
    } catch {
      let diedAlone = server.exitStatus
      let status = server.stop()
      if server.wasKilled.withLock({ $0 }) { throw error }
      if diedAlone == nil && status == .exited(0) { throw error }
      throw server.failure("\(status) while or after a test failed with: \(error)")
    }
    if server.wasKilled.withLock({ $0 }) { return result }
    if let status = server.exitStatus { throw server.failure("\(status) before it was told to end") }
    let status = server.stop()
    guard status == .exited(0) else { throw server.failure("\(status) when told to end") }
    return result
  }

  /// Runs nbdkit with these arguments until it ends by itself.
  package static func runToEnd(
    _ arguments: [String], launcher: [String] = [], secondsMax: Double = 30
  ) throws -> FinishedCommand {
    try FinishedCommand.run(launcher + ["nbdkit"] + arguments, secondsMax: secondsMax)
  }

  /// The text of a file in the server's private directory, such as a filter's log.
  package func text(of name: String) -> String { directory.text(of: name) }

  private init(_ command: NBDServerCommand, lifetimeSecondsMax: Double) throws {
    let directory = try PrivateDirectory()
    self.directory = directory
    let parameters = command.parameters.map { $0.replacing("{directory}", with: directory.path) }
    let fixed = ["-f", "--exit-with-parent", "-U", directory.file("nbd.sock"), "-P", directory.file("pid")]
    do {
      process = try ChildProcess(
        command.launcher + ["nbdkit"] + fixed + command.options + [command.plugin] + parameters,
        standardOutput: directory.file("stdout"), standardError: directory.file("stderr"),
        lifetimeSecondsMax: lifetimeSecondsMax)
    } catch {
      directory.remove()
      throw error
    }
    // nbdkit writes its process number once it listens.
    let isListening = Deadline(secondsFromNow: NBDServer.startSecondsMax).wait {
      process.exitStatus != nil || access(directory.file("pid"), F_OK) == 0
    }
    guard isListening && process.exitStatus == nil else {
      let status = isListening ? process.exitStatus : nil
      _ = stop()
      let failure = failure(status.map { "\($0) instead of listening" } ?? "did not listen in time")
      directory.remove()
      throw failure
    }
  }

  /// Kills the server, as `kill -9` does, and waits until it is gone. That it did not end well is no failure then.
  ///
  /// - Throws: `NBDServerError` where it had died before.
  package func kill() throws {
    if let status = exitStatus { throw failure("\(status) before it was killed") }
    wasKilled.withLock { $0 = true }
    process.send(SIGKILL)
    let status = process.waitForEnd(seconds: NBDServer.stopSecondsMax)
    guard status == .killed(signal: SIGKILL) else { throw failure("\(status) when it was killed") }
  }

  private func stop() -> ExitStatus {
    process.send(SIGTERM)
    return process.waitForEnd(seconds: NBDServer.stopSecondsMax)
  }

  private func failure(_ what: String) -> NBDServerError {
    NBDServerError(description: "nbdkit \(what)\ncommand: \(process.commandLine)\nstandard error:\n\(standardError)")
  }
}
