import Glibc
import NBDTestSupport
import Testing

@Suite struct `Option negotiation` {
  @Test(arguments: Engine.allCases)
  func `list shows one volume with a name and a description`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let negotiation = try NBDNegotiation(socketPath: server.socketPath)
      let exports = try negotiation.list()
      try #require(exports.count == 1)
      #expect(!exports[0].name.isEmpty)
      #expect(!exports[0].description.isEmpty)
      // Listing changes nothing: an export can be taken afterwards. (nbdkit 1.32.5 answers one list per connection.)
      #expect(try negotiation.go(exports[0].name).size() == 64 << 20)
    }
  }

  @Test(arguments: Engine.allCases)
  func `the empty name is the listed volume`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let listed = try #require(try NBDNegotiation(socketPath: server.socketPath).list().first)
      let unnamed = try NBDClient(socketPath: server.socketPath)
      let named = try NBDClient(socketPath: server.socketPath, exportName: listed.name)
      try unnamed.write([1, 2, 3], at: 1_000)
      #expect(try named.read(3, at: 1_000) == [1, 2, 3])
      #expect(try unnamed.canonicalExportName() == listed.name)
      #expect(try named.canonicalExportName() == listed.name)
      #expect(try unnamed.exportDescription() == listed.description)
      #expect(try named.exportDescription() == listed.description)
    }
  }

  @Test(arguments: Engine.allCases)
  func `info tells what go would give`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "1000001")) { server in
      let negotiation = try NBDNegotiation(socketPath: server.socketPath)
      let info = try negotiation.info("")
      #expect(try info.size() == 1_000_001)
      #expect(try info.canMultiConn())
      #expect(try info.canFUA())
      #expect(try info.blockSizes().minimum == 1)
      let client = try negotiation.go("")
      #expect(try client.size() == 1_000_001)
      #expect(try client.read(1, at: 1_000_000) == [0])
    }
  }

  @Test(arguments: [
    "nosuch", "@", "a/b", "../..", " ", String(repeating: "n", count: 4096), "\u{1F4BE}", "%s%n", "default\n",
  ])
  func `an unknown name is refused and the negotiation goes on`(_ name: String) throws {
    try NBDServer.run(PluginUnderTest.command(.extent)) { server in
      let negotiation = try NBDNegotiation(socketPath: server.socketPath)
      let infoError = #expect(throws: NBDError.self) { try negotiation.info(name) }
      #expect(infoError?.code == ENOENT)
      let goError = #expect(throws: NBDError.self) { try negotiation.go(name) }
      #expect(goError?.code == ENOENT)
      #expect(try negotiation.list().count == 1)
      #expect(try negotiation.go("").read(4, at: 0) == [0, 0, 0, 0])
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath, exportName: name) }
    }
  }

  @Test(arguments: ["nosuch", "nosuch\nnbdkit: error: a forged line", "nosuch \u{1B}[31m"])
  func `an unknown name costs one line of the server's log, without the client's control characters`(
    _ name: String
  ) throws {
    try NBDServer.run(PluginUnderTest.command(.extent)) { server in
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath, exportName: name) }
      let lines = server.standardError.split(separator: "\n")
      #expect(lines.count == 1, "standard error: \(server.standardError)")
      #expect(lines.first?.contains("nosuch") == true, "standard error: \(server.standardError)")
      #expect(!server.standardError.contains("\u{1B}"))
    }
  }

  @Test func `a negotiation can be ended without taking an export`() throws {
    try NBDServer.run(PluginUnderTest.command(.extent)) { server in
      try NBDNegotiation(socketPath: server.socketPath).abort()
      #expect(try NBDClient(socketPath: server.socketPath).size() == 64 << 20)
    }
  }
}
