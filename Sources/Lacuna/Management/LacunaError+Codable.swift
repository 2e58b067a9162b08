/// An error as JSON: `{"code": "noSuchVolume", "errno": 2, "message": "..."}`. A code that the reader does not know, of a newer
/// version, becomes `.deviceFailed` with the same errno.
extension LacunaError: Codable {
  private enum CodingKeys: CodingKey {
    case code, errno, message
  }

  public init(from decoder: any Decoder) throws {
    let container = try decoder.container(keyedBy: CodingKeys.self)
    let errno = try container.decode(Int32.self, forKey: .errno)
    let name = try container.decode(String.self, forKey: .code)
    self.init(Code(name: name, errno: errno), try container.decode(String.self, forKey: .message))
  }

  public func encode(to encoder: any Encoder) throws {
    var container = encoder.container(keyedBy: CodingKeys.self)
    try container.encode(code.name, forKey: .code)
    try container.encode(errno, forKey: .errno)
    try container.encode(description, forKey: .message)
  }
}

extension LacunaError.Code {
  /// All but `deviceFailed`, which has a number with it.
  package static let simple: [LacunaError.Code] = [
    .invalidParameter, .noSuchVolume, .deleted, .nameTaken, .busy, .readOnly, .quotaReached, .outOfRange,
    .outOfSpace, .notSupported, .damaged, .failed, .inUse, .closed, .notAStore, .newerFormat, .readOnlyFormat,
    .olderSuperblock, .unreachable, .untrusted, .invalidRequest, .internalFailure,
  ]

  /// The code with a name that it has as JSON; one of an unknown name is `deviceFailed`.
  init(name: String, errno: Int32) {
    self = Self.simple.first { $0.name == name } ?? .deviceFailed(errno: errno)
  }

  /// The name that the code has as JSON.
  package var name: String {
    switch self {
    case .invalidParameter: "invalidParameter"
    case .noSuchVolume: "noSuchVolume"
    case .deleted: "deleted"
    case .nameTaken: "nameTaken"
    case .busy: "busy"
    case .readOnly: "readOnly"
    case .quotaReached: "quotaReached"
    case .outOfRange: "outOfRange"
    case .outOfSpace: "outOfSpace"
    case .notSupported: "notSupported"
    case .damaged: "damaged"
    case .failed: "failed"
    case .inUse: "inUse"
    case .closed: "closed"
    case .notAStore: "notAStore"
    case .newerFormat: "newerFormat"
    case .readOnlyFormat: "readOnlyFormat"
    case .olderSuperblock: "olderSuperblock"
    case .unreachable: "unreachable"
    case .untrusted: "untrusted"
    case .invalidRequest: "invalidRequest"
    case .deviceFailed: "deviceFailed"
    case .internalFailure: "internalFailure"
    }
  }
}
