internal import ArgumentParser
internal import Lacuna

/// Which exports the clients of a server may open.
struct ExportArguments: ParsableArguments {
  @Option(
    name: .customLong("allow"),
    help: ArgumentHelp(
      "An export that clients may open, and no others; job/*, vm1:ro to read. Again for more.", valueName: "pattern"))
  var patterns: [String] = []

  func validate() throws {
    for pattern in patterns {
      do { _ = try ExportPattern(pattern) } catch { throw ValidationError("--allow: \(error.description)") }
    }
  }

  /// The plugin's parameters that say the same.
  var parameters: [String] { patterns.map { "allow=\($0)" } }
}
