import CNBDKit
import Glibc
import Lacuna

/// A parameter on nbdkit's command line, `name=value`.
enum Parameter: String, CaseIterable {
  case store, volume, size, create, limit, cache
  case blockSize = "block-size"
  case journal
  case checkpointInterval = "checkpoint-interval"
  case detectZeroes = "detect-zeroes"
  case control, allow, clients
  case memory, engine

  /// The parameter that a bare argument is the value of.
  static let bare = Parameter.store

  /// What `nbdkit lacuna --help` says of all parameters.
  static var help: String { allCases.map(\.help).joined(separator: "\n") }

  /// The names of all parameters, for messages.
  static var names: String { allCases.map(\.rawValue).joined(separator: ", ") }

  /// Whether it says something about a disk in memory, and not about a store; nil where it does about both.
  var isForMemory: Bool? { self == .allow || self == .clients ? nil : self == .memory || self == .engine }

  private var help: String {
    switch self {
    case .store:
      return "store=<PATH>      File or block device that holds the store; the name may be left out:\n"
        + "                    nbdkit lacuna disk.lacuna size=100G"
    case .volume:
      return "volume=<NAME>     Export for clients that name none (default: the store's default\n"
        + "                  volume); made where size= is given."
    case .size: return "size=<SIZE>       Size of the disk, such as 100G; needed to make a store or a volume."
    case .create: return "create=<BOOL>     Make a store or a volume that is not there (default true)."
    case .limit:
      return "limit=<SIZE>      Size that the store's file does not grow beyond; where the store has a\n"
        + "                  limit of its own, the smaller one holds."
    case .cache: return "cache=<SIZE>      Memory for caches (default 64M)."
    case .blockSize: return "block-size=<SIZE> Block size of a new store, 4096 to 65536 (default 4096)."
    case .journal: return "journal=<SIZE>    Journal of a new store, a multiple of 64K (default 16M)."
    case .checkpointInterval:
      return "checkpoint-interval=<SECONDS>\n                  Longest time between two checkpoints (default 60)."
    case .detectZeroes:
      return "detect-zeroes=<BOOL>\n                  Make holes of zeroes that are written (default on)."
    case .control:
      return
        "control=<PATH>|off\n                  Unix socket to manage the store by (default: the store's name with .sock;\n                  of a block device, a name in /run/lacuna/dev)."
    case .allow:
      return "allow=<PATTERN>[:ro]\n"
        + "                  Exports that clients may open, such as job/* or vm1:ro, and no others;\n"
        + "                  may be given again for more (default: all of them)."
    case .clients:
      return "clients=<N>       How many clients may be connected at once (default \(ClientLimit.countByDefault))."
    case .memory:
      return "memory=<SIZE>     Size of a disk that is held in memory, instead of store=."
    case .engine:
      let engines = MemoryEngine.allCases.map { "\n                    \($0.rawValue): \($0.summary)" }
      return "engine=<ENGINE>   How it is held in memory (default \(StoreOptions().engine.rawValue)):"
        + engines.joined()
    }
  }
}

/// Where the store can be managed while it is served.
enum ControlChoice {
  /// Where everybody looks for it; a server that cannot listen there serves without.
  case besideStore
  /// At this path, or not at all.
  case at(String)
  /// Nowhere.
  case off
}

/// What the command line has said so far. Parameters come one at a time, in any order, each at most once but for `allow`.
struct Configuration {
  /// Which exports clients may open.
  private(set) var permissions = ExportPermissions()
  /// How many clients may be connected at once.
  private(set) var clientCountMax = ClientLimit.countByDefault
  private var options = StoreOptions()
  private var control = ControlChoice.besideStore
  /// The parameters so far, in their order.
  private var given: [Parameter] = []

  /// Takes in one `name=value` of the command line.
  mutating func set(_ name: String, to value: String) throws(PluginError) {
    guard let parameter = Parameter(rawValue: name) else {
      throw PluginError("unknown parameter '\(name)'; the parameters of lacuna are: \(Parameter.names)")
    }
    guard parameter == .allow || !given.contains(parameter) else {
      throw PluginError("\(name)=\(value): the parameter \(name) may be given only once")
    }
    given.append(parameter)
    switch parameter {
    case .store: options.path = try Self.path(value)
    case .volume: options.volumeName = try Self.volumeName(value)
    case .size: options.byteCount = try Self.byteCount(name, value)
    case .create: options.createsMissing = try Self.boolean(value)
    case .limit: options.limitByteCount = try Self.byteCount(name, value)
    case .cache: options.cacheByteCount = try Self.byteCount(name, value)
    case .blockSize: options.blockByteCount = try Self.blockByteCount(value)
    case .journal: options.journalByteCount = try Self.journalByteCount(value)
    case .checkpointInterval: options.checkpointSeconds = try Self.seconds(value)
    case .detectZeroes: options.detectsZeroes = try Self.boolean(value)
    case .control: control = try Self.controlChoice(value)
    case .allow: permissions.allow(try Self.exportPattern(value))
    case .clients: clientCountMax = try Self.clientCount(value)
    case .memory: options.memoryByteCount = try Self.byteCount(name, value)
    case .engine: options.engine = try Self.engine(value)
    }
  }

  /// The store that the whole command line asks for.
  func complete() throws(PluginError) -> (StoreOptions, ControlChoice) {
    let basis: Parameter
    switch (given.contains(.store), given.contains(.memory)) {
    case (true, true): throw PluginError("store= and memory= exclude each other")
    case (true, false): basis = .store
    case (false, true): basis = .memory
    case (false, false):
      throw PluginError(
        "either store=PATH or memory=SIZE is needed: the store to serve, or how large a disk to serve from memory")
    }
    if let stranger = given.first(where: { $0.isForMemory.map { $0 != basis.isForMemory } ?? false }) {
      throw PluginError("\(stranger.rawValue)= means nothing together with \(basis.rawValue)=")
    }
    return (options, basis == .memory ? .off : control)
  }

  private static func controlChoice(_ value: String) throws(PluginError) -> ControlChoice {
    guard !value.isEmpty else { throw PluginError("control=: the path of the control socket is missing, or off") }
    if value == "off" { return .off }
    // nbdkit goes to another folder before it serves.
    guard let path = unsafe nbdkit_absolute_path(value) else { throw .alreadyReported }
    defer { unsafe free(path) }
    return unsafe .at(String(cString: path))
  }

  private static func exportPattern(_ value: String) throws(PluginError) -> ExportPattern {
    do { return try ExportPattern(value) } catch { throw PluginError("allow=\(value): \(error.description)") }
  }

  /// An absolute path, since nbdkit goes to another folder before it serves, without symbolic links as far as it exists: those are followed
  /// by the kernel, with its own rules for whose it follows.
  private static func path(_ value: String) throws(PluginError) -> String {
    guard !value.isEmpty else { throw PluginError("store=: the path of the store is missing") }
    if let found = FoundFile(at: value), value.utf8.last != UInt8(ascii: "/") { return found.path }
    // What does not exist yet, or cannot be looked at, which opening it will tell.
    guard let path = unsafe nbdkit_absolute_path(value) else { throw .alreadyReported }
    defer { unsafe free(path) }
    return unsafe String(cString: path)
  }

  private static func volumeName(_ value: String) throws(PluginError) -> String {
    guard !value.isEmpty else { throw PluginError("volume=: the name of the volume is missing") }
    return value
  }

  private static func byteCount(_ name: String, _ value: String) throws(PluginError) -> UInt64 {
    // nbdkit itself says what is wrong with a size, in one line.
    guard let byteCount = unsafe UInt64(exactly: nbdkit_parse_size(value)) else { throw .alreadyReported }
    guard byteCount > 0 else { throw PluginError("\(name)=\(value): it must be at least 1 byte") }
    return byteCount
  }

  private static func blockByteCount(_ value: String) throws(PluginError) -> UInt64 {
    let byteCount = try byteCount("block-size", value)
    guard StoreOptions.blockByteCounts.contains(byteCount) else {
      throw PluginError("block-size=\(value): a block has 4096, 8192, 16384, 32768 or 65536 bytes")
    }
    return byteCount
  }

  private static func journalByteCount(_ value: String) throws(PluginError) -> UInt64 {
    let byteCount = try byteCount("journal", value)
    guard byteCount % 65536 == 0, byteCount <= 1 << 32 else {
      throw PluginError("journal=\(value): the size of a journal is a multiple of 64K, and 4G at most")
    }
    return byteCount
  }

  private static func seconds(_ value: String) throws(PluginError) -> UInt32 {
    guard let seconds = decimalNumber(value).map(UInt32.init(clamping:)), (1...86_400).contains(seconds) else {
      throw PluginError("checkpoint-interval=\(value): it is a number of seconds from 1 to 86400")
    }
    return seconds
  }

  private static func clientCount(_ value: String) throws(PluginError) -> Int {
    guard let count = decimalNumber(value), (1...ClientLimit.countMax).contains(count) else {
      throw PluginError("clients=\(value): it is a number from 1 to \(ClientLimit.countMax)")
    }
    return count
  }

  private static func decimalNumber(_ value: String) -> Int? {
    value.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? Int(value) : nil
  }

  private static func boolean(_ value: String) throws(PluginError) -> Bool {
    switch unsafe nbdkit_parse_bool(value) {
    case 0: false
    case 1: true
    default: throw .alreadyReported
    }
  }

  private static func engine(_ value: String) throws(PluginError) -> MemoryEngine {
    guard let engine = MemoryEngine(rawValue: value) else {
      let names = MemoryEngine.allCases.map(\.rawValue).joined(separator: ", ")
      throw PluginError("unknown engine '\(value)'; the engines are: \(names)")
    }
    return engine
  }
}
