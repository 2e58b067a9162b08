import NBDTestSupport
import Testing

@Suite struct `Flush and FUA` {
  @Test(arguments: Engine.allCases)
  func `flush succeeds on an idle, a written and a second connection`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let first = try NBDClient(socketPath: server.socketPath)
      let second = try NBDClient(socketPath: server.socketPath)
      try first.flush()
      try first.write([1, 2, 3], at: 5)
      try second.flush()
      try first.flush()
      #expect(try second.read(3, at: 5) == [1, 2, 3])
    }
  }

  @Test(arguments: Engine.allCases)
  func `write, zero and trim take FUA`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var disk = ExpectedBytes(byteCount: 100_000)
      let bytes = [UInt8](repeating: 0x77, count: 50_001)
      try client.write(bytes, at: 13, flags: .fua)
      disk.write(bytes, at: 13)
      try disk.check(client)
      try client.zero(9_000, at: 4_000, flags: .fua)
      disk.zero(4_000..<13_000)
      try disk.check(client)
      try client.zero(9_000, at: 20_000, flags: [.fua, .noHole])
      disk.zero(20_000..<29_000)
      try disk.check(client)
      try client.trim(8_192, at: 36_864, flags: .fua)
      if engine.tracksHoles {
        disk.zero(36_864..<45_056)
        try disk.check(client)
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `the FUA flag reaches the plugin with its request`(_ engine: Engine) throws {
    let command = try PluginUnderTest.command(
      engine, options: ["--filter=log"], filterParameters: ["logfile={directory}/log"])
    try NBDServer.run(command) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write([1], at: 1, flags: .fua)
      try client.zero(1, at: 1, flags: .fua)
      try client.trim(1, at: 1, flags: .fua)
      try client.disconnect()
      let log = server.text(of: "log").split(separator: "\n")
      for request in [" Write ", " Zero ", " Trim "] {
        #expect(log.contains { $0.contains(request) && $0.contains("fua=1") }, "\(log)")
      }
      // nbdkit's emulation of FUA would show as a flush of its own.
      #expect(!log.contains { $0.contains(" Flush ") }, "\(log)")
    }
  }
}
