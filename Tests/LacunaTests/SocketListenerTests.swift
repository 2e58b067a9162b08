import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

@testable import Lacuna

@Suite struct `A socket that listens` {
  private func listen(at path: String, backlog: Int32 = 16) throws -> SocketListener {
    try SocketListener(at: path, for: SocketListener.Purpose(name: "socket", option: "--socket"), backlog: backlog)
  }

  private func identity(of path: String) throws -> FileIdentity {
    try ControlCalls.identity(of: ControlCalls.openReference(path, followsLinks: false))
  }

  @Test(arguments: [
    #"back\slash"#, #"\"#, #"\x5c"#, #"a\012b"#, "new\nline", "with space", "(deleted)", "größe", "@", "#1",
    String(repeating: "l", count: 200),
  ])
  func `is not taken away while it is alive, and is where it is stale, whatever its name`(_ name: String) throws {
    try PrivateDirectory.run { directory in
      let path = directory.file(name)
      let first = try listen(at: path)
      let before = try identity(of: path)
      let error = #expect(throws: LacunaError.self) { _ = try listen(at: path) }
      #expect(error?.code == .inUse)
      #expect(try identity(of: path) == before)
      _ = try ControlSocket.connect(to: path)
      // As if its process had died.
      ControlCalls.shutDown(first.socket)
      let second = try listen(at: path)
      #expect(try identity(of: path) != before)
      _ = try ControlSocket.connect(to: path)
      second.remove()
      #expect(access(path, F_OK) != 0)
    }
  }

  @Test func `keeps nobody waiting where its queue is full`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.sock")
      let listener = try listen(at: path, backlog: 0)
      let before = try identity(of: path)
      var waiting: [Descriptor] = []
      while true {
        let socket = try ControlCalls.makeSocket()
        guard (try? ControlCalls.connect(socket, to: path)) != nil else { break }
        waiting.append(socket)
      }
      #expect(!waiting.isEmpty)
      let start = ContinuousClock.now
      let error = #expect(throws: LacunaError.self) { _ = try listen(at: path) }
      #expect(error?.code == .inUse)
      #expect(ContinuousClock.now - start < .seconds(2))
      #expect(try identity(of: path) == before)
      var limits = ControlClientLimits()
      limits.connectingMillisecondsMax = 300
      let full = #expect(throws: LacunaError.self) { _ = try ControlClient(path: path, limits: limits) }
      #expect(full?.code == .unreachable && full?.description.contains("takes no more clients") == true)
      #expect(ContinuousClock.now - start < .seconds(10))
      listener.remove()
    }
  }
}
