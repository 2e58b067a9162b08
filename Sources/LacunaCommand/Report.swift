internal import ArgumentParser
internal import Lacuna

/// What the program says of an error, and how it then ends.
struct Report {
  private let text: String
  private let status: Int32
  private let isResult: Bool
  private let details: LacunaError?

  init(_ error: any Error) {
    details = error as? LacunaError
    switch error {
    case let error as LacunaError:
      text = [error.description, error.advice].compactMap(\.self).joined(separator: "; ")
      (status, isResult) = (ExitStatus.failed.rawValue, false)
    case let error as Failure: (text, status, isResult) = (error.description, error.status.rawValue, false)
    case let error as ExitStatus: (text, status, isResult) = ("", error.rawValue, true)
    case let error as ExitCode: (text, status, isResult) = ("", error.rawValue, true)
    default:
      status = LacunaCommand.exitCode(for: error).rawValue
      isResult = status == 0
      // Help, the version and completion scripts are results; of the others the parser would print the usage as well.
      text =
        isResult
        ? CompletionScript.amended(LacunaCommand.fullMessage(for: error))
        : "\(LacunaCommand.message(for: error).joinedLines); see \(Self.helpCommand)"
    }
  }

  /// Where the command line is explained that was not understood.
  private static var helpCommand: String {
    let verb = CommandLine.arguments.dropFirst().first ?? ""
    let isVerb = LacunaCommand.configuration.subcommands.contains { $0._commandName == verb }
    return isVerb ? "lacuna \(verb) --help" : "lacuna --help"
  }

  /// Prints it, and returns the exit code.
  func send() -> Int32 {
    guard !text.isEmpty else { return status }
    if isResult {
      do { try Terminal.write(text.hasSuffix("\n") ? text : text + "\n") } catch { return Report(error).send() }
    } else if CommandLine.arguments.contains("--json") {
      Terminal.writeMessage((try? JSONOutput.line(["error": ErrorObject(self)])) ?? "")
    } else {
      Terminal.say(text)
    }
    return status
  }

  /// An error as JSON has it: as the control socket has it, and with codes for what only this program can meet.
  private struct ErrorObject: Encodable {
    var code: String
    var errno: Int32
    var message: String

    init(_ report: Report) {
      code = report.details?.code.name ?? Self.code(of: report.status)
      errno = report.details?.errno ?? 0
      message = report.text
    }

    private static func code(of status: Int32) -> String {
      switch ExitStatus(rawValue: status) {
      case .usage: "usage"
      case .notConfirmed: "notConfirmed"
      default: "failed"
      }
    }
  }
}

extension String {
  /// The lines that the parser wrote as one. Those of names in it, which the parser has between apostrophes, too.
  fileprivate var joinedLines: String {
    split(whereSeparator: \.isNewline).map { $0.trimming(" ") }.joined(separator: " ")
  }
}

extension Substring {
  fileprivate func trimming(_ character: Character) -> Substring {
    var rest = self
    while rest.first == character { rest.removeFirst() }
    while rest.last == character { rest.removeLast() }
    return rest
  }
}
