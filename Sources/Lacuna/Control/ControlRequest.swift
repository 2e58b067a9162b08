internal import Bytes
internal import FoundationEssentials

/// What came in one line.
enum ControlMessage {
  /// Requests, of which each is one or is none. A line without brackets is one request.
  case requests([Incoming], isBatch: Bool)
  /// What is not even JSON, or not a batch that is taken.
  case refused(RPCError)

  /// Reads any bytes at all.
  init(_ line: [UInt8], limits: ControlLimits) {
    do throws(LacunaError) {
      try RequestShape.check(line, nestingMax: limits.nestingMax, stringByteCountMax: limits.stringByteCountMax)
    } catch {
      self = .refused(RPCError(error, code: RPCError.Code.parse))
      return
    }
    let isBatch = line.first { !RequestShape.isBlank($0) } == UInt8(ascii: "[")
    do {
      let requests =
        isBatch
        ? try JSONDecoder().decode([Incoming].self, from: Data(line))
        : [try JSONDecoder().decode(Incoming.self, from: Data(line))]
      guard !requests.isEmpty, requests.count <= limits.batchCountMax else {
        let text = "a batch has from 1 to \(limits.batchCountMax) requests, not \(requests.count)"
        self = .refused(RPCError(LacunaError(.invalidRequest, text), code: RPCError.Code.invalidRequest))
        return
      }
      self = .requests(requests, isBatch: isBatch)
    } catch {
      self = .refused(RPCError(LacunaError(.invalidRequest, "that is not JSON"), code: RPCError.Code.parse))
    }
  }
}

/// One request, or what is wrong with what should be one.
enum Incoming: Decodable {
  /// A call; without an `id`, nobody wants to know what came of it.
  case call(id: RequestID?, any StoreMethod)
  case refused(id: RequestID?, RPCError)

  private enum Keys: String, CodingKey {
    case jsonrpc, id, method, params
  }

  /// Never throws: what is wrong with one request of a batch is no reason not to answer the others.
  init(from decoder: any Decoder) {
    guard let members = try? decoder.container(keyedBy: Keys.self) else {
      self = .invalid(id: .null, "a request is a JSON object")
      return
    }
    var id: RequestID?
    if members.contains(.id) {
      guard let given = try? members.decode(RequestID.self, forKey: .id) else {
        self = .invalid(id: .null, "'id' is a string or an integer")
        return
      }
      id = given
    }
    guard (try? members.decode(String.self, forKey: .jsonrpc)) == ControlProtocol.marker else {
      self = .invalid(id: id ?? .null, "'jsonrpc' is \"2.0\"")
      return
    }
    guard let name = try? members.decode(String.self, forKey: .method) else {
      self = .invalid(id: id ?? .null, "'method' is a string")
      return
    }
    guard let method = ControlProtocol.methods[name] else {
      let error = LacunaError(.notSupported, "there is no method '\(name.beginning(64))'")
      self = .refused(id: id, RPCError(error, code: RPCError.Code.methodNotFound))
      return
    }
    do throws(LacunaError) {
      self = .call(id: id, try Self.decode(method, members))
    } catch {
      self = .refused(id: id, RPCError(error, code: RPCError.Code.invalidParameters))
    }
  }

  private static func invalid(id: RequestID, _ text: String) -> Incoming {
    .refused(id: id, RPCError(LacunaError(.invalidRequest, text), code: RPCError.Code.invalidRequest))
  }

  private static func decode<Method: StoreMethod>(
    _ type: Method.Type, _ members: KeyedDecodingContainer<Keys>
  ) throws(LacunaError) -> Method {
    do {
      guard members.contains(.params) else { return try JSONDecoder().decode(type, from: Data("{}".utf8)) }
      let method = try members.decode(type, forKey: .params)
      let known = Set(Mirror(reflecting: method).children.compactMap { $0.label?.withoutWrapper })
      // A misspelt option that passed for one that was left out could delete what it was to spare.
      let given = try members.nestedContainer(keyedBy: AnyKey.self, forKey: .params).allKeys.map(\.stringValue)
      if let stranger = given.filter({ !known.contains($0) }).min() {
        let names = known.isEmpty ? "takes none" : "takes \(known.sorted().joined(separator: ", "))"
        throw LacunaError(.invalidParameter, "\(type.name) has no parameter '\(stranger.beginning(64))': it \(names)")
      }
      return method
    } catch let error as LacunaError {
      throw error
    } catch {
      throw LacunaError(.invalidParameter, "\(type.name): \(describe(error))")
    }
  }

  private static func describe(_ error: any Error) -> String {
    // The decoder has errors of its own for numbers.
    guard let error = error as? DecodingError else { return "a numeric parameter is out of range" }
    switch error {
    case .keyNotFound(let key, _): return "the parameter '\(key.stringValue)' is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
      let path = context.codingPath.map { $0.intValue.map(String.init) ?? $0.stringValue }
      let place = path.drop { $0 != Keys.params.rawValue }.dropFirst().joined(separator: ".")
      return place.isEmpty
        ? "its parameters are a JSON object" : "the parameter '\(place)' has a value that it cannot have"
    @unknown default: return "its parameters cannot be read"
    }
  }
}

/// A key whatever it is called.
private struct AnyKey: CodingKey {
  var stringValue: String
  var intValue: Int? { nil }

  init?(stringValue: String) { self.stringValue = stringValue }
  init?(intValue: Int) { nil }
}

extension String {
  /// The name of a property whose storage this is.
  fileprivate var withoutWrapper: String { hasPrefix("_") ? String(dropFirst()) : self }
}

/// What must hold of a request, or of an answer, before a recursive parser may see it.
enum RequestShape {
  /// The longest key of an object, in bytes.
  private static let keyByteCountMax = 256

  /// Looks for text that is not UTF-8, for deep nesting and for long strings, in one pass without recursion.
  ///
  /// The parser looks keys up in a dictionary, and others look up names. For that, Swift brings a string into a normal form, which takes
  /// the square of the marks on a letter: minutes for one of 1 MiB.
  ///
  /// - Parameter stringByteCountMax: how long a string may be, with its escapes; nil for any length of those that are no keys.
  static func check(
    _ line: [UInt8], nestingMax: Int, stringByteCountMax: Int? = nil
  ) throws(LacunaError) {
    guard !line.contains(0), String(validating: line, as: UTF8.self) != nil else {
      throw LacunaError(.invalidRequest, "a request is text in UTF-8")
    }
    var depth = 0
    var isInString = false
    var isEscaped = false
    var stringByteCount = 0
    for byte in line {
      if isInString {
        stringByteCount += 1
        if isEscaped {
          isEscaped = false
        } else if byte == UInt8(ascii: "\\") {
          isEscaped = true
        } else if byte == UInt8(ascii: "\"") {
          isInString = false
          stringByteCount -= 1
          if let stringByteCountMax, stringByteCount > stringByteCountMax {
            throw LacunaError(.invalidRequest, "a string in a request has at most \(stringByteCountMax) bytes")
          }
        }
        continue
      }
      switch byte {
      case UInt8(ascii: "\""): (isInString, stringByteCount) = (true, 0)
      case UInt8(ascii: ":"):
        guard stringByteCount <= keyByteCountMax else {
          throw LacunaError(.invalidRequest, "a key has at most \(keyByteCountMax) bytes")
        }
      case UInt8(ascii: "["), UInt8(ascii: "{"):
        depth += 1
        guard depth <= nestingMax else {
          throw LacunaError(.invalidRequest, "a request is nested at most \(nestingMax) deep")
        }
      case UInt8(ascii: "]"), UInt8(ascii: "}"): depth -= 1
      default: break
      }
    }
  }

  /// Whether JSON lets a byte stand between its tokens.
  static func isBlank(_ byte: UInt8) -> Bool { [0x20, 0x09, 0x0A, 0x0D].contains(byte) }
}
