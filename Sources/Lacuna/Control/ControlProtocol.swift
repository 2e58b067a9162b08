/// What client and server of the control socket agree on: JSON-RPC 2.0, a message a line. `docs/control.md` has the whole.
package enum ControlProtocol {
  /// The version of the calls. It grows when what a client may rely on changes; new methods and new keys in results do not
  /// change it.
  package static let version = 1

  /// All methods by their names.
  static let methods: [String: any StoreMethod.Type] = {
    let all: [any StoreMethod.Type] = [
      Hello.self, GetStoreInfo.self, SetStore.self, CheckStore.self, GetStatistics.self, DumpBlock.self,
      GetDeletions.self, TrimStore.self, StopServing.self,
      ListVolumes.self, GetVolumeInfo.self, CreateVolume.self, DeleteVolumes.self, RenameVolume.self, ResizeVolume.self,
      SetVolume.self, CloneVolume.self, RollBackVolume.self, PromoteVolume.self, DiffVolumes.self, MapVolume.self,
      CreateSnapshots.self,
    ]
    return Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
  }()

  /// The value of the key `jsonrpc`.
  static let marker = "2.0"
}

/// What a client calls its request by.
enum RequestID: Codable, Hashable, Sendable {
  case text(String)
  case number(Int64)
  case null

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if container.decodeNil() {
      self = .null
    } else if let number = try? container.decode(Int64.self) {
      self = .number(number)
    } else {
      self = .text(try container.decode(String.self))
    }
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .text(let text): try container.encode(text)
    case .number(let number): try container.encode(number)
    case .null: try container.encodeNil()
    }
  }
}

/// The member `error` of an answer.
struct RPCError: Codable, Error {
  /// The numbers of JSON-RPC, and one for what a method reports.
  enum Code {
    static let parse = -32_700
    static let invalidRequest = -32_600
    static let methodNotFound = -32_601
    static let invalidParameters = -32_602
    static let refused = -32_001
    static let failed = -32_000
  }

  /// What a program branches on.
  struct Details: Codable {
    var code: String
    var errno: Int32
  }

  var code: Int
  var message: String
  var data: Details?

  /// What a method threw, or what was wrong with the request.
  init(_ error: LacunaError, code: Int = Code.failed) {
    self.code = code
    message = error.description
    data = Details(code: error.code.name, errno: error.errno)
  }

  /// What the method threw, at the client's end.
  var error: LacunaError {
    guard let data else { return LacunaError(.invalidRequest, message) }
    return LacunaError(LacunaError.Code(name: data.code, errno: data.errno), message)
  }
}
