import Bytes
import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

@testable import Lacuna

@Suite struct `A control server` {
  private static let hello = #"{"jsonrpc":"2.0","id":1,"method":"control.hello","params":{"version":1}}"#

  /// Starts a server of a small store, and stops it at the end of `body`.
  private func withServer(
    _ change: (inout ControlLimits) -> Void = { _ in }, _ body: (ControlServer, Store) throws -> Void
  ) throws {
    try PrivateDirectory.run { directory in
      var options = StoreOptions()
      options.path = directory.file("s.lacuna")
      options.byteCount = 1 << 20
      options.journalByteCount = 65_536
      let store = try Store(options)
      var limits = ControlLimits()
      change(&limits)
      let server = try ControlServer(path: directory.file("s.sock"), limits: limits)
      try server.start(store)
      defer { server.stop() }
      try body(server, store)
      // Whatever happened, it goes on.
      #expect(try ControlClient(path: server.path).call(Hello()).version == 1)
      #expect(try ControlClient(path: server.path).call(GetStoreInfo()).volumes == 1)
    }
  }

  @Test func `one connection makes any number of calls`() throws {
    try withServer { server, _ in
      let client = try ControlClient(path: server.path)
      let made = try client.call(CreateVolume(name: "vm1", size: 1 << 30))
      #expect(try client.call(GetVolumeInfo(name: "vm1")) == made)
      let error = #expect(throws: LacunaError.self) { try client.call(CreateVolume(name: "vm1", size: 1)) }
      #expect(error?.code == .nameTaken)
      #expect(try client.call(DeleteVolumes(names: ["vm1"])).deleted == ["vm1"])
      let missing = #expect(throws: LacunaError.self) { try client.call(GetVolumeInfo(name: "vm1")) }
      #expect(missing?.code == .noSuchVolume)
      #expect(missing?.errno == ENOENT)
    }
  }

  @Test func `requests may come at once and in pieces, and are answered in their order`() throws {
    try withServer { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      let lines = (0..<50).map {
        #"{"jsonrpc":"2.0","id":\#($0),"method":"control.hello","params":{"version":1}}"# + "\n"
      }
      let bytes = Array(lines.joined().utf8)
      for start in stride(from: 0, to: bytes.count, by: 37) {
        try raw.send(Array(bytes[start..<min(start + 37, bytes.count)]))
      }
      for index in 0..<50 { #expect(try raw.receiveLine()?.hasPrefix(#"{"id":\#(index),"#) == true) }
    }
  }

  @Test func `a request without an id has no answer, nor does a batch of them`() throws {
    try withServer { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      let note = #"{"jsonrpc":"2.0","method":"store.info"}"#
      for line in [note, "[\(note),\(note)]", "", "  ", Self.hello] { try raw.send(line: line) }
      #expect(try raw.receiveLine()?.contains(#""server":"lacuna"#) == true)
    }
  }

  @Test func `what is no request is answered, and the connection goes on`() throws {
    try withServer { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      for line in ["x", "[1,2]", "{}", String(repeating: "[", count: 100_000), "\u{0}"] {
        try raw.send(line: line)
        #expect(try raw.receiveLine()?.contains(#""error""#) == true)
      }
      try raw.send(line: Self.hello)
      #expect(try raw.receiveLine()?.contains("lacuna") == true)
    }
  }

  @Test func `a batch is one line`() throws {
    try withServer { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      try raw.send(line: "[\(Self.hello),7,\(Self.hello)]")
      let answer = try #require(try raw.receiveLine())
      #expect(answer.hasPrefix("[{") && answer.hasSuffix("}]"))
      #expect(answer.matches(of: /"server":"lacuna/).count == 2)
      #expect(answer.matches(of: /"error"/).count == 1)
    }
  }

  @Test func `a request that is too long is refused, and its client hung up on`() throws {
    try withServer({ $0.requestByteCountMax = 1000 }) { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      try raw.send([UInt8](repeating: UInt8(ascii: " "), count: 2000))
      #expect(try raw.receiveLine()?.contains("at most 1000 bytes") == true)
      #expect(try raw.receiveLine() == nil)
      // With its newline, and as long as it may be.
      let fits = try RawConnection(socketPath: server.path)
      try fits.send(line: Self.hello + String(repeating: " ", count: 999 - Self.hello.utf8.count))
      #expect(try fits.receiveLine()?.contains("lacuna") == true)
    }
  }

  @Test func `a request that does not come to its end is given up`() throws {
    try withServer({ $0.requestMillisecondsMax = 200 }) { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      try raw.send(Array(Self.hello.utf8))
      #expect(try raw.receiveLine()?.contains("a request comes within") == true)
      #expect(try raw.receiveLine() == nil)
      // Also where a byte comes now and then.
      let slow = try RawConnection(socketPath: server.path)
      let start = ContinuousClock.now
      for byte in Self.hello.utf8.prefix(30) {
        try slow.send([byte])
        usleep(20_000)
      }
      #expect(try slow.receiveLine()?.contains("a request comes within") == true)
      #expect(ContinuousClock.now - start < .seconds(5))
    }
  }

  @Test func `a client that asks for nothing is hung up on after its time`() throws {
    try withServer({ $0.idleMillisecondsMax = 200 }) { server, _ in
      let raw = try RawConnection(socketPath: server.path)
      #expect(try raw.receiveLine() == nil)
    }
  }

  @Test func `a client that does not read is given up, and no other one waits for it`() throws {
    try withServer({
      $0.answerMillisecondsMax = 500
      $0.connectionCountMax = 2
    }) { server, store in
      for index in 0..<50 { _ = try store.call(CreateVolume(name: "v\(index)", size: 1 << 20)) }
      defer { for index in 0..<50 { _ = try? store.call(DeleteVolumes(names: ["v\(index)"])) } }
      let list = #"{"jsonrpc":"2.0","id":1,"method":"volume.list"}"#
      func makeStuckClient() throws -> RawConnection {
        let stuck = try RawConnection(socketPath: server.path)
        // Some megabytes of answers, which no socket buffers.
        try stuck.send(Array(String(repeating: list + "\n", count: 500).utf8))
        return stuck
      }
      let first = try makeStuckClient()
      #expect(try ControlClient(path: server.path).call(Hello()).version == 1)
      let second = try makeStuckClient()
      usleep(1_500_000)
      // Both were hung up on, before they had all answers, and without having to read: there is room again.
      #expect(try ControlClient(path: server.path).call(Hello()).version == 1)
      for stuck in [first, second] {
        var lineCount = 0
        while try stuck.receiveLine() != nil { lineCount += 1 }
        #expect(lineCount < 500)
      }
    }
  }

  @Test func `one client too many takes the place of the one that is idle for longest`() throws {
    try withServer({ $0.connectionCountMax = 3 }) { server, _ in
      let clients = try (0..<3).map { _ in
        let raw = try RawConnection(socketPath: server.path)
        try raw.send(line: Self.hello)
        #expect(try raw.receiveLine() != nil)
        // It is idle a moment after it has its answer.
        usleep(200_000)
        return raw
      }
      let one = try ControlClient(path: server.path)
      #expect(try one.call(Hello()).version == 1)
      #expect(try clients[0].receiveLine() == nil)
      for raw in clients[1...] {
        try raw.send(line: Self.hello)
        #expect(try raw.receiveLine()?.contains("lacuna") == true)
      }
    }
  }

  @Test func `where no client is idle one too many is refused`() throws {
    try withServer({
      $0.connectionCountMax = 2
      $0.answerMillisecondsMax = 2000
    }) { server, store in
      let list = #"{"jsonrpc":"2.0","id":1,"method":"volume.list"}"#
      let busy = try (0..<2).map { _ in
        let raw = try RawConnection(socketPath: server.path)
        // As much as the sockets take, and with more answers than they take.
        try raw.send(Array(String(repeating: list + "\n", count: 2_500).utf8))
        return raw
      }
      usleep(300_000)
      let refused = try RawConnection(socketPath: server.path)
      #expect(try refused.receiveLine()?.contains("clients are served at once") == true)
      #expect(try refused.receiveLine() == nil)
      let error = #expect(throws: LacunaError.self) { try ControlClient(path: server.path).call(Hello()) }
      #expect(error?.code == .busy)
      _ = busy
      usleep(3_000_000)
    }
  }

  @Test func `a stop ends all connections and takes the socket away`() throws {
    try PrivateDirectory.run { directory in
      var options = StoreOptions()
      options.memoryByteCount = 1 << 20
      let store = try Store(options)
      let server = try ControlServer(path: directory.file("s.sock"))
      try server.start(store)
      let raw = try RawConnection(socketPath: server.path)
      try raw.send(line: Self.hello)
      #expect(try raw.receiveLine() != nil)
      server.stop()
      #expect(try raw.receiveLine() == nil)
      #expect(access(server.path, F_OK) != 0)
      let error = #expect(throws: LacunaError.self) { _ = try ControlClient(path: server.path) }
      #expect(error?.code == .unreachable)
    }
  }

  @Test func `a socket that another server has replaced meanwhile stays`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.sock")
      let first = try ControlServer(path: path)
      unlink(path)
      let second = try ControlServer(path: path)
      first.stop()
      #expect(access(path, F_OK) == 0)
      second.stop()
      #expect(access(path, F_OK) != 0)
    }
  }

  @Test func `of servers that replace one stale socket at once, one listens and the others say so`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.sock")
      for _ in 0..<50 {
        try makeStaleSocket(path)
        let servers = Locked<[ControlServer]>([])
        try inThreads(4) { _ in
          do throws(LacunaError) {
            let server = try ControlServer(path: path)
            servers.withLock { $0.append(server) }
          } catch {
            guard error.code == .inUse else { throw error }
          }
        }
        let listening = servers.withLock { $0 }
        #expect(listening.count == 1)
        _ = try ControlSocket.connect(to: path)
        for server in listening { server.stop() }
      }
    }
  }

  /// A socket that nobody listens on any more.
  private func makeStaleSocket(_ path: String) throws {
    let socket = try ControlCalls.makeSocket()
    try ControlCalls.bind(socket, to: path)
  }

  @Test func `a client whose call takes long hears that it is being done, and nothing between two calls`() throws {
    try withServer({ $0.aliveMilliseconds = 100 }) { server, store in
      let disk = try store.onDisk(for: Hello.self)
      let isHeld = Locked(true)
      let isHolding = Locked(false)
      try inThreads(2) { index in
        if index == 0 {
          disk.throwaways.opening.withLock {
            isHolding.withLock { $0 = true }
            while isHeld.withLock({ $0 }) { usleep(1000) }
          }
          return
        }
        defer { isHeld.withLock { $0 = false } }
        while !isHolding.withLock({ $0 }) { usleep(1000) }
        let raw = try RawConnection(socketPath: server.path)
        try raw.send(line: #"{"jsonrpc":"2.0","id":1,"method":"volume.promote","params":{"name":"disk+x","to":"vm2"}}"#)
        for _ in 0..<3 { #expect(try raw.receiveLine() == #"{"jsonrpc":"2.0","method":"alive"}"#) }
        isHeld.withLock { $0 = false }
        while let line = try raw.receiveLine(), line.contains("alive") {}
        usleep(500_000)
        try raw.send(line: Self.hello)
        #expect(try raw.receiveLine()?.contains(#""server":"lacuna"#) == true)
      }
    }
  }

  @Test(.slow) func `what it says meanwhile never comes inside another line`() throws {
    try withServer({
      $0.aliveMilliseconds = 0
      $0.progressMillisecondsMin = 0
    }) { server, store in
      // Answers of more than a socket takes, so that they are sent in pieces.
      let names = (0..<1500).map { "v\($0)-" + String(repeating: "x", count: 200) }
      for name in names { _ = try store.call(CreateVolume(name: name, size: 1 << 20)) }
      defer { _ = try? store.call(DeleteVolumes(names: names)) }
      let aliveCount = Locked(0)
      try inThreads(2) { _ in
        let raw = try RawConnection(socketPath: server.path)
        for id in 0..<6 {
          let methods = ["volume.list", "store.check"].map { #"{"jsonrpc":"2.0","id":\#(id),"method":"\#($0)"}"# }
          // In a batch nothing is said at all.
          try raw.send(line: id % 3 == 0 ? "[\(methods[0])]" : methods[id % 2])
          while true {
            let line = try #require(try raw.receiveLine())
            if line == #"{"jsonrpc":"2.0","method":"alive"}"# {
              #expect(id % 3 != 0)
              aliveCount.withLock { $0 += 1 }
              continue
            }
            try #require(line.hasPrefix("{") || line.hasPrefix("[{"), "\(line.prefix(100))")
            try #require(!line.contains("alive"), "\(line.prefix(100))")
            if line.contains(#""method":"progress""#) { continue }
            try #require(line.contains(#""id":\#(id),"#))
            break
          }
        }
      }
      #expect(aliveCount.withLock { $0 } > 0)
    }
  }

  @Test func `a memory store says that it cannot be managed`() throws {
    var options = StoreOptions()
    options.memoryByteCount = 1 << 20
    let store = try Store(options)
    for method in Samples.methods where type(of: method).name != Hello.name {
      func call<Method: StoreMethod>(_ method: Method) throws(LacunaError) { _ = try store.call(method) }
      let error = #expect(throws: LacunaError.self) { try call(method) }
      #expect(error?.code == .notSupported)
    }
  }
}
