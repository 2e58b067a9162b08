import NBDTestSupport
import Testing

/// How many requests each stream sends; LACUNA_NBD_STEPS sets another number.
private let steps = numberFromEnvironment("LACUNA_NBD_STEPS", else: 2_500)

@Suite struct `Random requests against a flat array` {
  // The size is no multiple of the block.
  @Test(arguments: Engine.allCases)
  func `one connection`(_ engine: Engine) throws {
    let seed = TestSeed(test: "random requests, \(engine.testDescription)")
    try NBDServer.run(PluginUnderTest.command(engine, size: "4100001")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var requests = RandomRequests(engine, client, range: 0..<4_100_001, seed: seed.value)
      do { try requests.run(steps) } catch { throw BrokenRule(description: "\(seed): \(error)") }
    }
  }

  @Test(arguments: Engine.allCases)
  func `four connections side by side, sharing the blocks where their parts meet`(_ engine: Engine) throws {
    let seed = TestSeed(test: "random requests on four connections, \(engine.testDescription)")
    let partBytes: UInt64 = 1_000_003
    try NBDServer.run(PluginUnderTest.command(engine, size: "\(4 * partBytes)")) { server in
      let path = server.socketPath
      try inThreads(4) { index in
        let client = try NBDClient(socketPath: path)
        let start = UInt64(index) * partBytes
        var requests = RandomRequests(
          engine, client, range: start..<start + partBytes, seed: seed.value &+ UInt64(index))
        do { try requests.run(steps) } catch {
          throw BrokenRule(description: "\(seed), connection \(index): \(error)")
        }
      }
    }
  }

  // Small parts, so that nearly every request meets a block that a neighbour changes too.
  @Test(arguments: Engine.allCases)
  func `eight connections on parts smaller than a block`(_ engine: Engine) throws {
    let seed = TestSeed(test: "random requests within blocks, \(engine.testDescription)")
    let partBytes: UInt64 = 1_531
    try NBDServer.run(PluginUnderTest.command(engine, size: "\(8 * partBytes)")) { server in
      let path = server.socketPath
      try inThreads(8) { index in
        let client = try NBDClient(socketPath: path)
        let start = UInt64(index) * partBytes
        var requests = RandomRequests(
          engine, client, range: start..<start + partBytes, seed: seed.value &+ UInt64(index))
        do { try requests.run(steps) } catch {
          throw BrokenRule(description: "\(seed), connection \(index): \(error)")
        }
      }
    }
  }
}
