import CNBDKit
import Lacuna

/// A parameter on nbdkit's command line, `name=value`.
enum Parameter: String, CaseIterable {
  case memory, engine

  /// What `nbdkit lacuna --help` says of all parameters.
  static var help: String { allCases.map(\.help).joined(separator: "\n") }

  /// The names of all parameters, for messages.
  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

  private var help: String {
    switch self {
    case .memory:
      return "memory=<SIZE>     (required) Size of the disk, which is held in memory, such as 10G."
    case .engine:
      let engines = MemoryEngine.allCases.map { "\n                    \($0.rawValue): \($0.summary)" }
      return "engine=<ENGINE>   How the disk is held (default \(StoreOptions().engine.rawValue)):" + engines.joined()
    }
  }
}

/// What the command line has said so far. Parameters come one at a time, in any order, each at most once.
struct Configuration {
  private var options = StoreOptions()
  private var given: Set<Parameter> = []

  /// Takes in one `name=value` of the command line.
  mutating func set(_ name: String, to value: String) throws(PluginError) {
    let parameter = try Self.parameter(named: name, value: value)
    guard given.insert(parameter).inserted else {
      throw PluginError("\(name)=\(value): the parameter \(name) may be given only once")
    }
    switch parameter {
    case .memory: options.memoryByteCount = try Self.byteCount(value)
    case .engine: options.engine = try Self.engine(value)
    }
  }

  /// The store that the whole command line asks for.
  func complete() throws(PluginError) -> StoreOptions {
    guard given.contains(.memory) else {
      throw PluginError("the parameter memory=SIZE is missing: it says how large a disk to serve from memory")
    }
    return options
  }

  private static func parameter(named name: String, value: String) throws(PluginError) -> Parameter {
    if let parameter = Parameter(rawValue: name) { return parameter }
    // nbdkit hands over a first argument that has no name as the value of "script".
    if name == "script" {
      throw PluginError("'\(value)' is not NAME=VALUE; the parameters of lacuna are: \(Parameter.names)")
    }
    throw PluginError("unknown parameter '\(name)'; the parameters of lacuna are: \(Parameter.names)")
  }

  private static func byteCount(_ value: String) throws(PluginError) -> UInt64 {
    // nbdkit itself says what is wrong with a size, in one line.
    guard let byteCount = unsafe UInt64(exactly: nbdkit_parse_size(value)) else { throw .alreadyReported }
    guard byteCount > 0 else { throw PluginError("memory=\(value): the disk must have at least 1 byte") }
    return byteCount
  }

  private static func engine(_ value: String) throws(PluginError) -> MemoryEngine {
    guard let engine = MemoryEngine(rawValue: value) else {
      let names = MemoryEngine.allCases.map(\.rawValue).joined(separator: ", ")
      throw PluginError("unknown engine '\(value)'; the engines are: \(names)")
    }
    return engine
  }
}
