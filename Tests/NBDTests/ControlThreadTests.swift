import Glibc
import NBDTestSupport
import Testing

@Suite struct `Clients of the control socket` {
  private func threadCount(_ server: NBDServer) throws -> Int {
    let pid = try #require(server.pid)
    return try FinishedCommand.run(["ls", "/proc/\(pid)/task"]).standardOutput.split(separator: "\n").count
  }

  // Where clients of the disks have used up all threads that the process may have, it must still be possible to look and to end it.
  @Test func `are served by threads that have been there from the start`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      try ServedStore.run(path, ["size=16M"]) { store in
        let request = #"{"jsonrpc":"2.0","id":1,"method":"control.hello","params":{"version":1}}"#
        // nbdkit says that it serves before the plugin starts its threads. The one that accepts is the first of them.
        let first = try RawConnection(socketPath: "\(path).sock")
        try first.send(line: request)
        #expect(try first.receiveLine() != nil)
        var before = 0
        for _ in 0..<100 where before != (try threadCount(store.server)) {
          before = try threadCount(store.server)
          usleep(300_000)
        }
        for _ in 0..<3 {
          let connections = try (0..<15).map { _ in try RawConnection(socketPath: "\(path).sock") }
          for connection in connections { try connection.send(line: request) }
          for connection in connections { #expect(try connection.receiveLine() != nil) }
          #expect(try threadCount(store.server) == before)
        }
        withExtendedLifetime(first) {}
      }
    }
  }
}
