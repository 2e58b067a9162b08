/// Why the program could not do what was asked, in one line: what, where, and what to do next.
struct Failure: Error, CustomStringConvertible {
  var description: String
  var status = ExitStatus.failed

  init(_ description: String, status: ExitStatus = .failed) {
    self.description = description
    self.status = status
  }
}

/// The program's exit codes (docs/command.md).
enum ExitStatus: Int32, Error {
  case done = 0
  /// Something went wrong; a line on standard error says what.
  case failed = 1
  /// `check` found something wrong, or `diff --exit-code` had something to show.
  case found = 2
  /// Data would have been destroyed, and nobody said yes.
  case notConfirmed = 3
  /// The command line was not understood.
  case usage = 64
}
