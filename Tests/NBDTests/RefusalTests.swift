import Glibc
import NBDTestSupport
import Testing

@Suite struct `Requests that must fail` {
  /// Offsets and lengths that end past a disk of 1000001 bytes.
  private static let pastTheEnd: [(offset: UInt64, byteCount: UInt64)] = [
    (1_000_000, 2), (1_000_001, 1), (999_424, 4_096), (0, 1_000_002), (1 << 32, 1), (1 << 62, 4_096),
    ((1 << 63) - 1, 1), (1 << 63, 512), (UInt64.max - 511, 512), (UInt64.max, 1), (0, NBDClient.requestBytesMax),
  ]

  @Test(arguments: Engine.allCases)
  func `a range past the end is refused and harms nothing`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "1000001")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write([42], at: 1_000_000)
      func expect(_ code: Int32, _ what: String, _ request: () throws -> Void) {
        do {
          try request()
          Issue.record("\(what) succeeded")
        } catch let error as NBDError {
          #expect(error.code == code, "\(what): \(error)")
        } catch {
          Issue.record(error)
        }
      }
      for (offset, byteCount) in Self.pastTheEnd {
        let range = "\(byteCount) bytes at \(offset)"
        // libnbd itself caps the buffers of reads and writes at 64 MiB.
        if byteCount <= 32 << 20 {
          expect(EINVAL, "reading \(range)") { _ = try client.read(Int(byteCount), at: offset) }
          expect(ENOSPC, "writing \(range)") {
            try client.write([UInt8](repeating: 1, count: Int(byteCount)), at: offset)
          }
        }
        expect(ENOSPC, "zeroing \(range)") { try client.zero(byteCount, at: offset) }
        expect(EINVAL, "trimming \(range)") { try client.trim(byteCount, at: offset) }
        expect(EINVAL, "caching \(range)") { try client.cache(byteCount, at: offset) }
        expect(EINVAL, "block status of \(range)") { _ = try client.blockStatus(byteCount, at: offset) }
      }
      #expect(try client.read(1, at: 1_000_000) == [42])
      #expect(try client.read(1_000_000, at: 0).allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: Engine.allCases)
  func `a read-only connection reads and refuses every change`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, options: ["-r"])) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      #expect(try client.isReadOnly())
      #expect(try !client.canTrim())
      #expect(try !client.canZero())
      for flags in [CommandFlags(), .fua] {
        let write = #expect(throws: NBDError.self) { try client.write([1], at: 0, flags: flags) }
        #expect(write?.code == EPERM)
        let zero = #expect(throws: NBDError.self) { try client.zero(4_096, at: 0, flags: flags) }
        #expect(zero?.code == EPERM)
        let trim = #expect(throws: NBDError.self) { try client.trim(4_096, at: 0, flags: flags) }
        #expect(trim?.code == EPERM)
      }
      #expect(try client.read(8_192, at: 4_095).allSatisfy { $0 == 0 })
      #expect(try client.allocation(of: 0..<64 << 20).last?.end == 64 << 20)
      try client.cache(4_096, at: 1)
      try client.flush()
    }
  }

  @Test(arguments: Engine.allCases)
  func `an empty request answers with an error and the connection goes on`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      #expect(throws: NBDError.self) { try client.read(0, at: 0) }
      #expect(throws: NBDError.self) { try client.write([], at: 0) }
      #expect(throws: NBDError.self) { try client.zero(0, at: 0) }
      #expect(throws: NBDError.self) { try client.trim(0, at: 0) }
      #expect(throws: NBDError.self) { try client.blockStatus(0, at: 0) }
      #expect(try client.read(1, at: 0) == [0])
    }
  }
}
