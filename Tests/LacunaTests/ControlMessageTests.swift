import LacunaTestSupport
import Testing

@testable import Lacuna

@Suite struct `Requests to a control server` {
  private func message(_ text: String, limits: ControlLimits = ControlLimits()) -> ControlMessage {
    ControlMessage(Array(text.utf8), limits: limits)
  }

  /// The one call of a line.
  private func call(_ text: String) throws -> (id: RequestID?, method: any StoreMethod) {
    guard case .requests(let requests, isBatch: false) = message(text), requests.count == 1,
      case .call(let id, let method) = requests[0]
    else { throw CheckFailure("no call: \(text)") }
    return (id, method)
  }

  /// The error number of the one request of a line, or of the line.
  private func error(_ text: String) throws -> RPCError {
    switch message(text) {
    case .refused(let error): return error
    case .requests(let requests, _):
      guard requests.count == 1, case .refused(_, let error) = requests[0] else {
        throw CheckFailure("accepted: \(text)")
      }
      return error
    }
  }

  @Test func `an error has the beginning of a name, however long its characters are`() throws {
    let letter = "a" + String(repeating: "\u{301}", count: 4000)
    #expect(letter.count == 1)
    let found = try error(#"{"jsonrpc":"2.0","id":1,"method":"\#(letter)"}"#)
    #expect(found.message.utf8.count < 200)
    #expect(found.message.unicodeScalars.contains("\u{301}"))
  }

  @Test func `strings that would take long to compare are refused at once`() throws {
    // Its marks are in the wrong order, so that they are sorted.
    let letter = "a" + String(repeating: "\u{301}\u{316}", count: 50_000)
    let clock = ContinuousClock()
    for text in [
      #"{"jsonrpc":"2.0","id":1,"method":"\#(letter)"}"#, #"{"jsonrpc":"2.0","id":1,"\#(letter)" : 1}"#,
      #"{"jsonrpc":"2.0","id":1,"method":"store.info","params":{"\#(letter)":1}}"#,
    ] {
      var message = ""
      let time = try clock.measure { message = try error(text).message }
      #expect(message.contains("has at most"), "\(message.utf8.count)")
      #expect(time < .seconds(2))
    }
    let key = String(repeating: "k", count: 257)
    let found = try error(#"{"jsonrpc":"2.0","id":1,"method":"store.info","params":{"\#(key)":1}}"#)
    #expect(found.message.contains("256"))
    // An answer may have long text, and no long keys.
    #expect(throws: Never.self) { try RequestShape.check(Array(#"{"text":"\#(letter)","b":1}"#.utf8), nestingMax: 16) }
    #expect(throws: LacunaError.self) { try RequestShape.check(Array(#"{"\#(letter)":1}"#.utf8), nestingMax: 16) }
  }

  @Test func `every method comes back as it was sent`() throws {
    for method in Samples.methods {
      let line = ControlAnswer.request(any: method, id: .number(7))
      #expect(line.last == UInt8(ascii: "\n"))
      #expect(!line.dropLast().contains(UInt8(ascii: "\n")))
      let (id, back) = try call(String(decoding: line.dropLast(), as: UTF8.self))
      #expect(id == .number(7))
      #expect(type(of: back) == type(of: method))
      #expect("\(back)" == "\(method)")
    }
    #expect(Set(Samples.methods.map { type(of: $0).name }) == Set(ControlProtocol.methods.keys))
  }

  @Test func `every result comes back as it was sent`() throws {
    try Samples.forEachResult { result in
      try Samples.roundTrip(result)
    }
  }

  @Test func `every error comes back as it was sent`() throws {
    for code in LacunaError.Code.simple + [.deviceFailed(errno: 28), .deviceFailed(errno: 5)] {
      let error = LacunaError(code, "what happened, \"quoted\"")
      let back = RPCError(error).error
      #expect(back.code == code)
      #expect(back.description == error.description)
      #expect(back.errno == error.errno)
      let coded = try Samples.recoded(error)
      #expect(coded.code == code)
      #expect(coded.description == error.description)
    }
    // Of a newer server.
    var unknown = RPCError(LacunaError(.busy, "x"))
    unknown.data?.code = "somethingNew"
    #expect(unknown.error.code == .deviceFailed(errno: LacunaError(.busy, "").errno))
  }

  @Test func `what is optional may be left out, and parameters too where all are`() throws {
    let list = try call(#"{"jsonrpc":"2.0","id":1,"method":"volume.list"}"#).method as? ListVolumes
    #expect(list?.space == false && list?.prefix == nil && list?.limit == nil)
    let delete = try call(#"{"jsonrpc":"2.0","id":1,"method":"volume.delete","params":{"names":["a"]}}"#).method
    #expect((delete as? DeleteVolumes)?.dryRun == false)
    let info = try call(#"{"jsonrpc":"2.0","method":"store.info","params":{}}"#)
    #expect(info.id == nil)
  }

  @Test(arguments: [
    (#""x""#, RequestID.text("x")), ("0", .number(0)), ("-9223372036854775808", .number(.min)), ("null", .null),
  ])
  func `an id is a string, an integer or null`(_ text: String, _ id: RequestID) throws {
    #expect(try call(#"{"jsonrpc":"2.0","id":\#(text),"method":"store.info"}"#).id == id)
  }

  @Test(arguments: [
    ("x", RPCError.Code.parse), ("", RPCError.Code.parse), ("{", RPCError.Code.parse),
    (#"{"a":}"#, RPCError.Code.parse),
    ("\u{0}", RPCError.Code.parse), ("{} {}", RPCError.Code.parse), ("[]", RPCError.Code.invalidRequest),
    ("7", RPCError.Code.invalidRequest), ("null", RPCError.Code.invalidRequest), ("[1]", RPCError.Code.invalidRequest),
    ("{}", RPCError.Code.invalidRequest), (#"{"jsonrpc":"1.0","method":"store.info"}"#, RPCError.Code.invalidRequest),
    (#"{"jsonrpc":2.0,"method":"store.info"}"#, RPCError.Code.invalidRequest),
    (#"{"jsonrpc":"2.0","method":7}"#, RPCError.Code.invalidRequest),
    (#"{"jsonrpc":"2.0","id":1.5,"method":"store.info"}"#, RPCError.Code.invalidRequest),
    (#"{"jsonrpc":"2.0","id":{},"method":"store.info"}"#, RPCError.Code.invalidRequest),
    (#"{"jsonrpc":"2.0","id":1,"method":"store.nothing"}"#, RPCError.Code.methodNotFound),
    (#"{"jsonrpc":"2.0","id":1,"method":"volume.info"}"#, RPCError.Code.invalidParameters),
    (#"{"jsonrpc":"2.0","id":1,"method":"volume.info","params":[1]}"#, RPCError.Code.invalidParameters),
    (#"{"jsonrpc":"2.0","id":1,"method":"volume.info","params":{"name":7}}"#, RPCError.Code.invalidParameters),
    (
      #"{"jsonrpc":"2.0","id":1,"method":"volume.info","params":{"name":"a","spase":true}}"#,
      RPCError.Code.invalidParameters
    ),
    (
      #"{"jsonrpc":"2.0","id":1,"method":"volume.resize","params":{"name":"a","size":-1}}"#,
      RPCError.Code.invalidParameters
    ),
    (
      #"{"jsonrpc":"2.0","id":1,"method":"volume.resize","params":{"name":"a","size":1e99}}"#,
      RPCError.Code.invalidParameters
    ),
    (
      #"{"jsonrpc":"2.0","id":1,"method":"volume.resize","params":{"name":"a","size":0.5}}"#,
      RPCError.Code.invalidParameters
    ),
    (
      #"{"jsonrpc":"2.0","id":1,"method":"volume.delete","params":{"names":["a"],"dryrun":true}}"#,
      RPCError.Code.invalidParameters
    ),
  ])
  func `what is no request has the error of JSON-RPC`(_ text: String, _ code: Int) throws {
    #expect(try error(text).code == code, "\(text)")
  }

  @Test func `a parameter that is wrong is named`() throws {
    func text(_ parameters: String) throws -> String {
      try error(#"{"jsonrpc":"2.0","id":1,"method":"volume.delete","params":\#(parameters)}"#).message
    }
    #expect(try text("{}") == "volume.delete: the parameter 'names' is missing")
    #expect(try text(#"{"names":[1]}"#) == "volume.delete: the parameter 'names.0' has a value that it cannot have")
    #expect(try text(#"{"names":"a"}"#) == "volume.delete: the parameter 'names' has a value that it cannot have")
    #expect(try text("[]") == "volume.delete: its parameters are a JSON object")
    #expect(try text(#"{"names":[],"x":1}"#).contains("no parameter 'x': it takes dryRun, force, names, snapshots"))
  }

  @Test func `a batch is as long as it may be, and one bad request harms none of the others`() throws {
    var limits = ControlLimits()
    limits.batchCountMax = 3
    let good = #"{"jsonrpc":"2.0","id":1,"method":"store.info"}"#
    guard case .requests(let requests, isBatch: true) = message(" [\(good),7,\(good)]", limits: limits) else {
      throw CheckFailure("no batch")
    }
    let kinds = requests.map { if case .call = $0 { true } else { false } }
    #expect(kinds == [true, false, true])
    guard case .refused(let error) = message("[\(good),\(good),\(good),\(good)]", limits: limits) else {
      throw CheckFailure("too long a batch was taken")
    }
    #expect(error.message.contains("from 1 to 3"))
  }

  @Test func `deep nesting is refused before it is parsed, and brackets in strings are none`() throws {
    let deep = String(repeating: "[", count: 500_000)
    #expect(try error(deep).message.contains("nested at most 16"))
    #expect(try error(String(repeating: #"{"a":"#, count: 100_000)).message.contains("nested at most 16"))
    let name = String(repeating: #"[{\""#, count: 50)
    let method = try call(#"{"jsonrpc":"2.0","id":1,"method":"volume.info","params":{"name":"\#(name)"}}"#).method
    #expect((method as? GetVolumeInfo)?.name == String(repeating: "[{\"", count: 50))
  }

  @Test func `text that is not UTF-8 is refused`() throws {
    for bytes: [UInt8] in [[0xFF, 0xFE, 0x7B, 0], [0x22, 0xC0, 0x80, 0x22], [0, 0x7B], [0xED, 0xA0, 0x80]] {
      guard case .refused(let error) = ControlMessage(bytes, limits: ControlLimits()) else {
        throw CheckFailure("\(bytes) was taken")
      }
      #expect(error.code == RPCError.Code.parse)
    }
  }

  @Test func `no bytes at all make the parser fail`() throws {
    try withSeededGenerator { generator in
      let seeds = Samples.methods.map { ControlAnswer.request(any: $0, id: .number(1)) }
      for _ in 0..<3_000 {
        var line = seeds.randomElement(using: &generator) ?? []
        for _ in 0..<Int.random(in: 1...8, using: &generator) {
          guard !line.isEmpty else { break }
          let index = Int.random(in: 0..<line.count, using: &generator)
          switch Int.random(in: 0..<4, using: &generator) {
          case 0: line[index] = UInt8.random(in: 0...255, using: &generator)
          case 1: line.remove(at: index)
          case 2: line.insert(Array("{}[]\",:0e-\\ut".utf8).randomElement(using: &generator) ?? 0, at: index)
          default: line = Array(line[..<index]) + (seeds.randomElement(using: &generator) ?? []).suffix(40)
          }
        }
        try Samples.checkParsing(line)
      }
    }
  }
}
