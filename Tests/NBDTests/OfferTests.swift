import NBDTestSupport
import Testing

@Suite struct `What the server offers` {
  @Test(arguments: Engine.allCases)
  func `a volume can be written, flushed, trimmed, zeroed, cached and asked for its block status`(
    _ engine: Engine
  ) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      #expect(try client.size() == 64 << 20)
      #expect(try !client.isReadOnly())
      #expect(try !client.isRotational())
      #expect(try client.canFlush())
      #expect(try client.canFUA())
      #expect(try client.canTrim())
      #expect(try client.canZero())
      #expect(try client.canFastZero())
      #expect(try client.canCache())
      #expect(try client.canMultiConn())
      #expect(try client.canBlockStatus())
    }
  }

  @Test(arguments: Engine.allCases)
  func `any alignment is allowed, the block is preferred, and requests of 2 MiB fit`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      let sizes = try client.blockSizes()
      #expect(sizes.minimum == 1)
      #expect(sizes.preferred == Int64(PluginUnderTest.blockBytes))
      #expect(sizes.maximum == 2 << 20)
      let bytes = (0..<2 << 20).map { UInt8(truncatingIfNeeded: $0 / 4099) }
      try client.write(bytes, at: 5)
      #expect(try client.read(bytes.count, at: 5) == bytes)
    }
  }

  // The wire does not show whether nbdkit emulates these; the log filter writes down what the plugin told nbdkit.
  @Test(arguments: Engine.allCases)
  func `zero, FUA and cache are the plugin's own work, not nbdkit's emulation`(_ engine: Engine) throws {
    let command = try PluginUnderTest.command(
      engine, options: ["--filter=log"], filterParameters: ["logfile={directory}/log"])
    try NBDServer.run(command) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.disconnect()
      let line = try #require(server.text(of: "log").split(separator: "\n").first { $0.contains(" Connect ") })
      let words = Set(line.split(separator: " ").map(String.init))
      for word in ["write=1", "flush=1", "trim=1", "zero=2", "fua=2", "extents=1", "cache=2", "rotational=0"] {
        #expect(words.contains(word), "the log says: \(line)")
      }
    }
  }

  @Test(arguments: Engine.allCases, ["1", "511", "4095", "4097", "1000001", "10M", "1T"])
  func `the size is the one asked for, to the byte`(_ engine: Engine, _ size: String) throws {
    let byteCounts: [String: UInt64] = ["10M": 10 << 20, "1T": 1 << 40]
    // A store of plain bytes may well hold every byte: no terabyte from it.
    if engine == .bytes && size == "1T" { return }
    try NBDServer.run(PluginUnderTest.command(engine, size: size)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      let byteCount = try #require(byteCounts[size] ?? UInt64(size))
      #expect(try client.size() == byteCount)
      try client.write([1], at: byteCount - 1)
      #expect(try client.read(1, at: byteCount - 1) == [1])
    }
  }
}
