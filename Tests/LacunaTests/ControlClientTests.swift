import Bytes
import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

@testable import Lacuna

@Suite struct `A client of a server that does not keep to the rules` {
  /// A server that does `body` with each connection, in a thread of its own.
  private func withServer(
    _ serve: @escaping @Sendable (Descriptor) -> Void, _ change: (inout ControlClientLimits) -> Void = { _ in },
    _ body: (ControlClient) throws -> Void
  ) throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.sock")
      let listener = try SocketListener(
        at: path, for: SocketListener.Purpose(name: "control socket", option: "control="), backlog: 16)
      defer { listener.remove() }
      try ControlCalls.startThread(stackByteCount: 1 << 20) {
        while (try? ControlCalls.wait(listener.socket, for: .reading, until: nil)) == true,
          let socket = try? ControlCalls.accept(listener.socket)
        {
          serve(socket)
        }
      }
      var limits = ControlClientLimits()
      change(&limits)
      try body(try ControlClient(path: path, limits: limits))
    }
  }

  private static func send(_ text: String, _ socket: Descriptor) {
    try? LineChannel(socket).write(Array(text.utf8), milliseconds: 5000)
  }

  private func expectRefusal(_ client: ControlClient, _ code: LacunaError.Code, _ words: String) {
    let start = ContinuousClock.now
    let error = #expect(throws: LacunaError.self) { try client.call(GetStoreInfo()) }
    #expect(error?.code == code && error?.description.contains(words) == true, "\(String(describing: error))")
    #expect(ContinuousClock.now - start < .seconds(20))
  }

  @Test func `gives up one that says nothing`() throws {
    let sockets = Locked<[Descriptor]>([])
    try withServer({ socket in sockets.withLock { $0.append(socket) } }, { $0.silenceMillisecondsMax = 1000 }) {
      expectRefusal($0, .unreachable, "has said nothing for 1 seconds")
    }
  }

  @Test func `gives up one that begins an answer and does not come to its end`() throws {
    let sockets = Locked<[Descriptor]>([])
    try withServer(
      { socket in
        Self.send(#"{"id":1,"#, socket)
        sockets.withLock { $0.append(socket) }
      }, { $0.messageMillisecondsMax = 500 }
    ) { expectRefusal($0, .unreachable, "did not come to the end of its answer") }
    // Also where a byte comes now and then, or so much that there is always something.
    for (piece, pause) in [([0x20], 20_000), ([UInt8](repeating: 0x20, count: 4096), 0)] as [([UInt8], useconds_t)] {
      try withServer(
        { socket in
          let end = Deadline(secondsFromNow: 8)
          while !end.hasPassed, (try? LineChannel(socket).write(piece, milliseconds: 5000)) != nil { usleep(pause) }
        },
        {
          $0.messageMillisecondsMax = 500
          $0.messageByteCountMax = 1 << 40
        }
      ) { client in
        let start = ContinuousClock.now
        expectRefusal(client, .unreachable, "did not come to the end of its answer")
        #expect(ContinuousClock.now - start < .seconds(5))
      }
    }
  }

  @Test func `gives up one whose answer is too long, and holds no more of it than that`() throws {
    try withServer(
      { socket in
        let piece = [UInt8](repeating: 0x20, count: 1 << 20)
        while (try? LineChannel(socket).write(piece, milliseconds: 5000)) != nil {}
      }, { $0.messageByteCountMax = 1 << 20 }
    ) { expectRefusal($0, .unreachable, "gave too long an answer") }
  }

  @Test func `gives up one that does not take its request`() throws {
    let sockets = Locked<[Descriptor]>([])
    try withServer({ socket in sockets.withLock { $0.append(socket) } }, { $0.requestMillisecondsMax = 500 }) {
      client in
      let names = (0..<100_000).map { "volume-\($0)@snapshot" }
      let error = #expect(throws: LacunaError.self) { try client.call(CreateSnapshots(names: names)) }
      #expect(error?.code == .unreachable && error?.description.contains("takes no requests") == true)
    }
  }

  @Test func `waits for one that is at it, and does not mind what it need not know`() throws {
    try withServer(
      { socket in
        for _ in 0..<20 {
          Self.send(#"{"jsonrpc":"2.0","method":"alive"}"# + "\n", socket)
          Self.send(#"{"jsonrpc":"2.0","method":"other","params":[1,{"x":2}]}"# + "\n", socket)
          usleep(100_000)
        }
        Self.send(
          #"{"jsonrpc":"2.0","method":"progress","params":{"id":1,"stage":"x","done":1,"unit":"blocks"}}"# + "\n",
          socket)
        Self.send(#"{"jsonrpc":"2.0","id":1,"result":{"version":1,"server":"x"}}"# + "\n", socket)
      }, { $0.silenceMillisecondsMax = 1000 }
    ) { client in
      var reports: [Progress] = []
      let answer = try client.call(Hello()) { reports.append($0) }
      #expect(answer.server == "x")
      #expect(reports == [Progress(stage: "x", done: 1, total: nil, unit: .blocks)])
    }
  }

  @Test func `says that it was answered what it did not ask, or nothing that can be read`() throws {
    for (answer, words) in [
      ("", "cannot be read"), ("x", "cannot be read"), ("[]", "cannot be read"), ("{}", "not asked"),
      ("null", "cannot be read"),
      (#"{"id":1}"#, "not asked"), (#"{"id":2,"result":{"version":1,"server":"x"}}"#, "not asked"),
      (#"{"id":1,"result":{"version":"1","server":"x"}}"#, "cannot be read"),
      (#"{"id":1,"result":{"version":1e999,"server":"x"}}"#, "cannot be read"),
      (#"{"id":1,"result":{"version":9223372036854775808,"server":"x"}}"#, "cannot be read"),
      (#"{"method":"progress","params":{"done":-1}}"#, "cannot be read"), (#"{"id":1,"error":7}"#, "cannot be read"),
      (String(repeating: "[", count: 10_000), "cannot be read"), ("\u{0}", "cannot be read"),
    ] {
      try withServer({ Self.send(answer + "\n", $0) }) { client in
        let error = #expect(throws: LacunaError.self) { try client.call(Hello()) }
        #expect(
          error?.code == .invalidRequest && error?.description.contains(words) == true,
          "\(answer): \(String(describing: error))")
      }
    }
  }
}
