import LacunaTestSupport
import NBDTestSupport
import Testing

/// Lengths and offsets around the sizes where code splits: sectors, blocks, pages, one byte more and less.
private let awkwardNumbers: [UInt64] = [0, 1, 2, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12_289, 65_535, 65_536]

@Suite struct `Reading and writing` {
  @Test(arguments: Engine.allCases)
  func `a fresh volume reads as zeroes`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      for offset in awkwardNumbers {
        #expect(try client.read(70_000, at: offset).allSatisfy { $0 == 0 })
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `writes of every alignment change their bytes and no others`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var disk = ExpectedBytes(byteCount: 256 << 10)
      var generator = SeededGenerator(seed: 1)
      for offset in awkwardNumbers {
        for length in awkwardNumbers where length > 0 {
          let bytes = generator.pattern(Int(length))
          try client.write(bytes, at: offset)
          disk.write(bytes, at: offset)
          try disk.check(client, (offset < 5_000 ? 0 : offset - 5_000)..<offset + length + 5_000)
        }
      }
      try disk.check(client)
    }
  }

  @Test(arguments: Engine.allCases)
  func `reads of every alignment see what was written`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var disk = ExpectedBytes(byteCount: 256 << 10)
      var generator = SeededGenerator(seed: 2)
      // Data, holes and half-written blocks in turn.
      for offset in stride(from: UInt64(0), to: 250_000, by: 17_000) {
        let bytes = generator.pattern(9_000)
        try client.write(bytes, at: offset)
        disk.write(bytes, at: offset)
      }
      for offset in awkwardNumbers {
        for length in awkwardNumbers where length > 0 {
          try disk.check(client, offset..<offset + length)
        }
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `requests of 2 MiB, the longest, are written and read`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var generator = SeededGenerator(seed: 3)
      let bytes = generator.pattern(2 << 20)
      for offset in [UInt64(0), 12_345_679] {
        try client.write(bytes, at: offset)
        // One comparison of whole arrays: the testing library would describe both of them on failure.
        let isSame = try client.read(bytes.count, at: offset) == bytes
        #expect(isSame, "2 MiB at \(offset) read back differently")
      }
    }
  }

  @Test(arguments: Engine.allCases, [1_048_576, 1_048_577, 1_048_575, 1_000_001] as [UInt64])
  func `requests that touch the last byte of the disk work`(_ engine: Engine, _ size: UInt64) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "\(size)")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var disk = ExpectedBytes(byteCount: size)
      var generator = SeededGenerator(seed: 4)
      for length in awkwardNumbers where length > 0 {
        let bytes = generator.pattern(Int(length))
        try client.write(bytes, at: size - length)
        disk.write(bytes, at: size - length)
        try disk.check(client, size - length..<size)
      }
      for length in awkwardNumbers where length > 0 {
        try client.zero(length, at: size - length)
        disk.zero(size - length..<size)
        try disk.check(client, size - length..<size)
      }
      try client.trim(size, at: 0)
      try client.cache(size, at: 0)
      let extents = try client.allocation(of: 0..<size)
      #expect(extents.last?.end == size)
      let whole = generator.pattern(Int(size))
      try client.write(whole, at: 0)
      disk.write(whole, at: 0)
      try disk.check(client)
    }
  }

  @Test(arguments: Engine.allCases)
  func `caching changes nothing and takes any range within the disk`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write([9, 8, 7], at: 4_095)
      for offset in awkwardNumbers {
        for length in awkwardNumbers where length > 0 { try client.cache(length, at: offset) }
      }
      try client.cache(64 << 20, at: 0)
      #expect(try client.read(5, at: 4_094) == [0, 9, 8, 7, 0])
    }
  }
}
