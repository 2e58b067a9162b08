import Glibc
import Lacuna
import LacunaTestSupport

extension FuzzTargets {
  /// A server's answers to a client's calls: any bytes, any bytes where a result or an error would be, or right answers of a real store
  /// with changes. The client takes them or throws; it neither traps nor waits, and a call makes one request.
  static func client(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let call = Answered.all[Int(input.byte()) % Answered.all.count]
    let form = input.byte()
    var answer: [UInt8]
    switch form % 4 {
    case 0: answer = input.rest()
    case 1: answer = Array(#"{"id":1,"jsonrpc":"2.0","result":"#.utf8) + input.rest() + Array("}\n".utf8)
    case 2: answer = Array(#"{"id":1,"jsonrpc":"2.0","error":"#.utf8) + input.rest() + Array("}\n".utf8)
    default:
      answer = call.answer
      while !input.isAtEnd, !answer.isEmpty {
        let place = Int(input.number() % UInt64(answer.count))
        switch input.byte() % 4 {
        case 0: answer[place] = input.byte()
        case 1: answer.insert(contentsOf: input.bytes(Int(input.byte()) % 16), at: place)
        case 2: answer.removeSubrange(place..<min(place + Int(input.byte()) % 16, answer.count))
        default: answer.insert(contentsOf: "\(input.number())".utf8, at: place)
        }
      }
      answer.append(UInt8(ascii: "\n"))
    }
    var ends: [Int32] = [0, 0]
    guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &ends) == 0 else { throw CheckFailure("no sockets") }
    defer { close(ends[1]) }
    // Before the request, so that one thread is enough: a socket takes much more than this.
    guard answer.withUnsafeBytes({ write(ends[1], $0.baseAddress, $0.count) }) == answer.count else {
      throw CheckFailure("a socket does not take \(answer.count) bytes")
    }
    shutdown(ends[1], Int32(SHUT_WR))
    var limits = ControlClientLimits()
    limits.messageByteCountMax = 1 << 16
    limits.silenceMillisecondsMax = 1000
    let client = ControlClient(connected: ends[0], limits: limits)
    var reportCount = 0
    do {
      try call.run(client) { reportCount += 1 }
    } catch let error as LacunaError {
      guard error.code != .unreachable || !error.description.contains("said nothing") else {
        throw CheckFailure("a client waited for a server that had hung up")
      }
    }
    guard reportCount <= answer.count / 20 else {
      throw CheckFailure("\(reportCount) reports from \(answer.count) bytes")
    }
    var request = [UInt8](repeating: 0, count: 4096)
    let requestCount = recv(ends[1], &request, request.count, Int32(MSG_DONTWAIT))
    guard requestCount > 0, request[..<requestCount].filter({ $0 == UInt8(ascii: "\n") }).count == 1 else {
      throw CheckFailure("a call makes one request, not \(requestCount) bytes")
    }
  }
}

extension FuzzInput {
  /// All that is left.
  fileprivate mutating func rest() -> [UInt8] {
    var all: [UInt8] = []
    while !isAtEnd { all.append(byte()) }
    return all
  }
}

/// A call with what a real store answers to it.
private struct Answered: Sendable {
  var answer: [UInt8]
  var run: @Sendable (ControlClient, () -> Void) throws -> Void

  static let all: [Answered] = {
    do { return try make() } catch { fatalError("no store that answers: \(error)") }
  }()

  private static func make() throws -> [Answered] {
    let path = "\(getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp")/lacuna-fuzz-\(getpid()).lacuna"
    var options = StoreOptions()
    options.path = path
    options.byteCount = 1 << 20
    options.journalByteCount = 65_536
    let store = try Store(options)
    unlink(path)
    _ = try store.call(CreateSnapshots(names: ["disk@a"]))
    return [
      answered(Hello(), by: store), answered(GetStoreInfo(), by: store), answered(GetStatistics(), by: store),
      answered(CheckStore(data: false), by: store), answered(ListVolumes(), by: store),
      answered(GetVolumeInfo(name: "disk"), by: store), answered(MapVolume(name: "disk"), by: store),
      answered(DiffVolumes(from: "disk@a", to: "disk"), by: store), answered(DumpBlock(block: 0), by: store),
      answered(DeleteVolumes(names: ["none"]), by: store), answered(GetDeletions(), by: store),
      answered(StopServing(), by: store),
    ]
  }

  private static func answered<Method: StoreMethod>(_ method: Method, by store: Store) -> Answered {
    Answered(answer: ControlLine.answers(to: ControlLine.request(method), from: store).flatMap(\.self)) {
      client, note in
      _ = try client.call(method) { _ in note() }
    }
  }
}
