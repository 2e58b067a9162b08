import Glibc
import NBDTestSupport
import Testing

/// The program under test: the one place that knows its file.
enum Program {
  /// Runs it with these arguments, until it ends.
  ///
  /// - Parameter launcher: a program with its arguments that starts it, such as setpriv(1) or env(1).
  static func run(_ arguments: [String], launcher: [String] = [], secondsMax: Double = 30) throws -> FinishedCommand {
    try FinishedCommand.run(launcher + [path()] + arguments, secondsMax: secondsMax)
  }

  /// LACUNA_COMMAND, else the program beside the running test program.
  static func path() throws -> String { try file("LACUNA_COMMAND", "lacuna", mode: X_OK) }

  /// The plugin: LACUNA_PLUGIN, else the library beside the running test program.
  static func plugin() throws -> String { try file("LACUNA_PLUGIN", "libnbdkit-lacuna-plugin.so", mode: R_OK) }

  private static func file(_ variable: String, _ name: String, mode: Int32) throws -> String {
    let candidate = getenv(variable).map { String(cString: $0) } ?? "\(folderOfTests())/\(name)"
    guard access(candidate, mode) == 0 else { throw FileMissing(path: candidate, variable: variable) }
    return candidate.contains("/") ? candidate : "./\(candidate)"
  }

  private static func folderOfTests() -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    let program = String(decoding: buffer[..<max(count, 0)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    return program.lastIndex(of: "/").map { String(program[..<$0]) } ?? "."
  }
}

/// What was to be tested is not there; that is a failure, and no reason to skip.
struct FileMissing: Error, CustomStringConvertible {
  var path: String
  var variable: String
  var description: String { "there is no \(path): run `swift build`, or set \(variable)" }
}

extension FinishedCommand {
  /// Expects a success without a word on standard error.
  @discardableResult
  func succeeded(_ location: SourceLocation = #_sourceLocation) -> FinishedCommand {
    #expect(status == .exited(0) && standardError.isEmpty, "\(status): \(standardError)", sourceLocation: location)
    return self
  }

  /// Expects this exit code, nothing on standard output, and one line on standard error that has these words in it.
  func refused(
    _ code: Int32, naming words: [String], _ what: String = "", _ location: SourceLocation = #_sourceLocation
  ) {
    let isRight =
      status == .exited(code) && standardOutput.isEmpty && standardError.hasPrefix("lacuna: ")
      && standardError.filter(\.isNewline).count == 1 && words.allSatisfy { standardError.contains($0) }
    #expect(
      isRight, "\(what) \(status), naming \(words): \(standardError)\(standardOutput)", sourceLocation: location)
  }
}
