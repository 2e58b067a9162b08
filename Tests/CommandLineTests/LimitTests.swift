import Glibc
import NBDTestSupport
import Testing

/// The size that a store's file stays within, as users set it and see it.
@Suite struct LimitTests {
  private static let mebibyte: UInt64 = 1 << 20

  private func byteCount(of file: String) -> UInt64 {
    var status = stat()
    return stat(file, &status) == 0 ? UInt64(status.st_size) : .max
  }

  /// Writes pieces of 1 MiB until there is no room; fails where 256 of them find some.
  private func fill(_ server: NBDServer) throws {
    let client = try NBDClient(socketPath: server.socketPath)
    let failure = #expect(throws: NBDError.self) {
      for number in 0..<256 as Range<UInt64> {
        try client.write([UInt8](repeating: 3, count: 1 << 20), at: number << 20)
      }
    }
    #expect(failure?.code == ENOSPC)
    try client.flush()
    try client.disconnect()
  }

  private func info(_ lab: Lab) throws -> String { try lab.run(["info"]).succeeded().standardOutput }

  @Test func `is kept to by each server of the store, and changed while one runs`() throws {
    try Lab.run(.free) { lab in
      #expect(unlink(lab.store) == 0)
      try Program.run(["create", lab.store, "--size", "1G", "--limit", "40M"]).succeeded()
      #expect(try info(lab).contains("limit:          40 MiB (41943040 bytes)\n"))
      try lab.serve { server in
        try fill(server)
        #expect(byteCount(of: lab.store) <= 40 * Self.mebibyte)
        let answer = try lab.run(["set", "--limit", "50M"]).succeeded().standardOutput
        #expect(answer.contains("limit:          50 MiB (52428800 bytes)\n"), "\(answer)")
        try fill(server)
        #expect((48 * Self.mebibyte...50 * Self.mebibyte).contains(byteCount(of: lab.store)))
        let less = try lab.run(["set", "--limit", "30M"]).succeeded().standardOutput
        #expect(less.contains("and it does not grow\n"), "\(less)")
        #expect(try info(lab).contains("limit:          30 MiB"))
      }
      #expect(try info(lab).contains("limit:          30 MiB"))
      try lab.run(["set", "--limit", "60M", "--no-default"]).succeeded()
      try lab.serve(["volume=disk", "limit=55M"]) { server in
        try fill(server)
        #expect((53 * Self.mebibyte...55 * Self.mebibyte).contains(byteCount(of: lab.store)))
        let both = try info(lab)
        #expect(
          both.contains(
            "limit:          55 MiB (57671680 bytes) while this process serves it; the store's own limit: 60 MiB"),
          "\(both)")
        try lab.run(["set", "--limit", "none"]).succeeded()
        #expect(try info(lab).contains("own limit: none\n"))
      }
      #expect(try !info(lab).contains("limit"))
      try lab.run(["check", "--data"]).succeeded()
    }
  }

  @Test func `is refused with a volume's name, and as what is no size`() throws {
    try Lab.run(.free) { lab in
      try lab.run(["set", "vm1", "--limit", "1G"]).refused(64, naming: ["--limit is of the whole store"])
      try lab.run(["set", "--limit", "much"]).refused(64, naming: ["much"])
      try lab.run(["set"]).refused(64, naming: ["--limit"])
    }
  }
}
