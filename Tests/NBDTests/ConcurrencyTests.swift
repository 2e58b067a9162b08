import LacunaTestSupport
import NBDTestSupport
import Testing

private func connect(_ server: NBDServer, _ count: Int = 4) throws -> [NBDClient] {
  try (0..<count).map { _ in try NBDClient(socketPath: server.socketPath) }
}

@Suite struct `Several connections at once` {
  @Test(arguments: Engine.allCases)
  func `what one connection was told is done, all others see`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let clients = try connect(server)
      var disk = ExpectedBytes(byteCount: 300_000)
      var generator = SeededGenerator(seed: 5)
      for round in 0..<40 {
        let offset = UInt64(round * 6_007)
        let writer = clients[round % 4]
        if round % 5 == 4 {
          try writer.zero(10_000, at: offset)
          disk.zero(offset..<offset + 10_000)
        } else {
          let bytes = generator.pattern(9_001)
          try writer.write(bytes, at: offset)
          disk.write(bytes, at: offset)
        }
        for client in clients { try disk.check(client, offset..<offset + 12_000) }
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `four connections with 32 commands in flight each keep every byte`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      try withSeededGenerator { generator in
        let clients = try connect(server)
        // Slots that start and end inside blocks; within a round each slot has one command, so the order is free.
        let slotBytes: UInt64 = 21_001
        var disk = ExpectedBytes(byteCount: 128 * slotBytes)
        for _ in 0..<15 {
          var reads: [(slot: UInt64, command: NBDCommand)] = []
          for (index, slot) in (0..<UInt64(128)).shuffled(using: &generator).enumerated() {
            let client = clients[index % 4]
            let range = slot * slotBytes..<(slot + 1) * slotBytes
            switch Int.random(in: 0..<10, using: &generator) {
            case 0..<5:
              let bytes = generator.pattern(range.count)
              _ = try client.startWrite(bytes, at: range.lowerBound, flags: Bool.random(using: &generator) ? .fua : [])
              disk.write(bytes, at: range.lowerBound)
            case 5:
              let flags: CommandFlags = Bool.random(using: &generator) ? .noHole : []
              _ = try client.startZero(slotBytes, at: range.lowerBound, flags: flags)
              disk.zero(range)
            default:
              reads.append((slot, try client.startRead(range.count, at: range.lowerBound)))
            }
          }
          #expect(clients.map(\.commandsInFlight) == [32, 32, 32, 32])
          for client in clients { _ = try client.startFlush() }
          try NBDClient.finish(clients)
          for (slot, command) in reads {
            // A read shares its round with no change of its own slot.
            try disk.check(command.bytes, at: slot * slotBytes)
          }
        }
        for client in clients { try disk.check(client) }
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `small writes into one block at the same time lose none`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let clients = try connect(server)
      var disk = ExpectedBytes(byteCount: 3 * PluginUnderTest.blockBytes)
      var generator = SeededGenerator(seed: 6)
      for _ in 0..<30 {
        // 256 pieces of 48 bytes, dealt out to four connections, fill three blocks; some straddle two of them.
        for (index, piece) in (0..<UInt64(256)).shuffled(using: &generator).enumerated() {
          let bytes = generator.pattern(48)
          _ = try clients[index % 4].startWrite(bytes, at: piece * 48)
          disk.write(bytes, at: piece * 48)
        }
        try NBDClient.finish(clients)
        try disk.check(clients[0])
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `overlapping writes leave only bytes that one of them wrote`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let clients = try connect(server)
      try clients[0].write([UInt8](repeating: 1, count: 200_000), at: 0)
      for round in 0..<20 {
        var reads: [NBDCommand] = []
        for (index, client) in clients.enumerated() {
          let fill = UInt8(10 + index)
          for offset in [UInt64(100), 4_000, 60_000] {
            _ = try client.startWrite([UInt8](repeating: fill, count: 70_000), at: offset + UInt64(round))
          }
          reads.append(try client.startRead(130_000, at: 2_000))
        }
        try NBDClient.finish(clients)
        for read in reads {
          #expect(read.bytes.allSatisfy { $0 == 1 || (10...13).contains($0) })
        }
        let final = try clients[0].read(130_000 - 100, at: 100 + UInt64(round))
        #expect(final.allSatisfy { (10...13).contains($0) })
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `reads beside trims and writes of the same block see the old or the new bytes`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let clients = try connect(server)
      let count = Int(4 * PluginUnderTest.blockBytes)
      try clients[0].write([UInt8](repeating: 5, count: count), at: 0)
      for _ in 0..<60 {
        _ = try clients[0].startWrite([UInt8](repeating: 5, count: count), at: 0)
        _ = try clients[1].startTrim(UInt64(count), at: 0)
        let reads = [try clients[2].startRead(count, at: 0), try clients[3].startRead(count, at: 0)]
        try NBDClient.finish(clients)
        for read in reads { #expect(read.bytes.allSatisfy { $0 == 5 || $0 == 0 }) }
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `connections come and go while others work`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let path = server.socketPath
      try inThreads(4) { index in
        let disk = UInt64(index) * 100_003
        for round in 0..<40 {
          let client = try NBDClient(socketPath: path)
          let bytes = [UInt8](repeating: UInt8(1 + round), count: 10_007)
          try client.write(bytes, at: disk)
          guard try client.read(bytes.count, at: disk) == bytes else {
            throw CheckFailure("connection \(round) of thread \(index) read other bytes than it wrote")
          }
          try client.disconnect()
        }
      }
    }
  }
}
