/// What a command that ran to its end left behind.
package struct FinishedCommand: Sendable {
  package var status: ExitStatus
  package var standardOutput: String
  package var standardError: String

  /// Runs a program, found through PATH, until it ends by itself; with nothing on its standard input.
  package static func run(_ arguments: [String], secondsMax: Double = 30) throws -> FinishedCommand {
    let directory = try PrivateDirectory()
    defer { directory.remove() }
    let process = try ChildProcess(
      arguments, standardOutput: directory.file("stdout"), standardError: directory.file("stderr"),
      lifetimeSecondsMax: secondsMax + 10)
    let status = process.waitForEnd(seconds: secondsMax)
    return FinishedCommand(
      status: status, standardOutput: directory.text(of: "stdout"), standardError: directory.text(of: "stderr"))
  }
}
