import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// How many requests each stream sends; the environment variable LACUNA_NBD_STEPS sets another number.
private let steps = getenv("LACUNA_NBD_STEPS").flatMap { Int(String(cString: $0)) } ?? 2_500

/// Runs one stream of random requests on each of `count` parts of a disk, side by side on connections of their own.
private func runSideBySide(_ engine: Engine, _ count: Int, partBytes: UInt64) throws {
  try withSeededGenerator { generator in
    let generators = (0..<count).map { _ in SeededGenerator(seed: generator.next()) }
    try NBDServer.run(PluginUnderTest.command(engine, size: "\(UInt64(count) * partBytes)")) { server in
      let path = server.socketPath
      try inThreads(count) { index in
        let client = try NBDClient(socketPath: path)
        let start = UInt64(index) * partBytes
        var requests = RandomRequests(engine, client, range: start..<start + partBytes, generators[index])
        do { try requests.run(steps) } catch { throw CheckFailure("connection \(index): \(error)") }
      }
    }
  }
}

@Suite struct `Random requests against a flat array` {
  // The size is no multiple of the block.
  @Test(arguments: Engine.allCases)
  func `one connection`(_ engine: Engine) throws {
    try runSideBySide(engine, 1, partBytes: 4_100_001)
  }

  @Test(arguments: Engine.allCases)
  func `four connections side by side, sharing the blocks where their parts meet`(_ engine: Engine) throws {
    try runSideBySide(engine, 4, partBytes: 1_000_003)
  }

  // Small parts, so that nearly every request meets a block that a neighbour changes too.
  @Test(arguments: Engine.allCases)
  func `eight connections on parts smaller than a block`(_ engine: Engine) throws {
    try runSideBySide(engine, 8, partBytes: 1_531)
  }
}
