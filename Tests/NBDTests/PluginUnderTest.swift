import Glibc
import NBDTestSupport

/// The plugin that the suites serve: the one place that knows its file and its parameters.
enum PluginUnderTest {
  /// The bytes of one block of the plugin's stores, unless they are told otherwise.
  static let blockBytes: UInt64 = 4096

  /// A server of one new volume of `size`, which goes with the server.
  static func command(
    _ engine: Engine, size: String = "64M", options: [String] = [], filterParameters: [String] = []
  ) throws -> NBDServerCommand {
    NBDServerCommand(
      plugin: try path(), parameters: parameters(engine, size: size) + filterParameters, options: options)
  }

  private static func parameters(_ engine: Engine, size: String) -> [String] {
    engine == .disk
      ? ["{directory}/disk.lacuna", "size=\(size)"] : ["memory=\(size)", "engine=\(engine.rawValue)"]
  }

  /// A server of a store in a file.
  static func command(store: String, _ parameters: [String] = [], options: [String] = []) throws -> NBDServerCommand {
    NBDServerCommand(plugin: try path(), parameters: ["store=\(store)"] + parameters, options: options)
  }

  /// LACUNA_PLUGIN, else the library beside the running test program.
  static func path() throws -> String {
    let candidate = getenv("LACUNA_PLUGIN").map { String(cString: $0) } ?? besideTestProgram()
    guard access(candidate, R_OK) == 0 else { throw PluginMissing(path: candidate) }
    // nbdkit takes a name without a slash for a plugin of its own.
    return candidate.contains("/") ? candidate : "./\(candidate)"
  }

  private static func besideTestProgram() -> String {
    var buffer = [CChar](repeating: 0, count: Int(PATH_MAX))
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    let program = String(decoding: buffer[..<max(count, 0)].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    let folder = program.lastIndex(of: "/").map { program[..<$0] } ?? "."
    return "\(folder)/libnbdkit-lacuna-plugin.so"
  }
}

/// The plugin's file is not there. These tests mean nothing without it, so that is a failure and no reason to skip.
struct PluginMissing: Error, CustomStringConvertible {
  var path: String
  var description: String {
    "no plugin at \(path): run `swift build --product nbdkit-lacuna-plugin`, or set LACUNA_PLUGIN to the plugin's file"
  }
}
