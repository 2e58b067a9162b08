internal import FoundationEssentials

/// Messages as lines of JSON, with their newlines.
enum ControlAnswer {
  /// What a call brought.
  static func result(_ value: some Encodable, to id: RequestID) -> [UInt8] {
    line(Success(jsonrpc: ControlProtocol.marker, id: id, result: value))
  }

  /// That a call failed.
  static func error(_ error: RPCError, to id: RequestID) -> [UInt8] {
    line(Failure(jsonrpc: ControlProtocol.marker, id: id, error: error))
  }

  /// How far a call has come.
  static func progress(_ progress: Progress, of id: RequestID) -> [UInt8] {
    line(
      Report(jsonrpc: ControlProtocol.marker, method: "progress", params: Report.Parameters(id: id, progress: progress))
    )
  }

  /// That the server is at it. So short that a socket takes all of it or nothing.
  static let alive = line(Notice(jsonrpc: ControlProtocol.marker, method: "alive"))

  /// A client's call.
  static func request<Method: StoreMethod>(_ method: Method, id: RequestID) -> [UInt8] {
    line(Request(jsonrpc: ControlProtocol.marker, id: id, method: Method.name, params: method))
  }

  private struct Success<Value: Encodable>: Encodable {
    var jsonrpc: String
    var id: RequestID
    var result: Value
  }

  private struct Failure: Encodable {
    var jsonrpc: String
    var id: RequestID
    var error: RPCError
  }

  private struct Request<Method: StoreMethod>: Encodable {
    var jsonrpc: String
    var id: RequestID
    var method: String
    var params: Method
  }

  private struct Notice: Encodable {
    var jsonrpc: String
    var method: String
  }

  private struct Report: Encodable {
    struct Parameters: Encodable {
      var id: RequestID
      var progress: Progress

      func encode(to encoder: any Encoder) throws {
        var container = encoder.container(keyedBy: Keys.self)
        try container.encode(id, forKey: .id)
        try progress.encode(to: encoder)
      }

      private enum Keys: CodingKey {
        case id
      }
    }

    var jsonrpc: String
    var method: String
    var params: Parameters
  }

  private static func line(_ value: some Encodable) -> [UInt8] {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    // Only a number that JSON has no text for fails, which no result holds.
    guard let data = try? encoder.encode(value) else {
      return Array("{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32603,\"message\":\"no JSON\"}}\n".utf8)
    }
    // People look at it too, through programs that hand it to a terminal as it is.
    return Array(String(decoding: data, as: UTF8.self).visibleInJSON.utf8) + [UInt8(ascii: "\n")]
  }
}
