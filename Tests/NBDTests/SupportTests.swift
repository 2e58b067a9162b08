import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// The helpers that all other suites trust, against servers whose faults are known: nbdkit's own plugins.
@Suite struct `The tests' own helpers` {
  /// A disk of 64 KiB of zeroes with these callbacks of nbdkit's eval plugin, each a piece of shell.
  private func shellServer(_ callbacks: String...) -> NBDServerCommand {
    NBDServerCommand(
      plugin: "eval",
      parameters: [
        "get_size=echo 65536", "can_write=exit 0", "pread=head -c $3 /dev/zero", "pwrite=cat >/dev/null",
      ].filter { fixed in !callbacks.contains { $0.prefix { $0 != "=" } == fixed.prefix { $0 != "=" } } } + callbacks)
  }

  @Test func `a server that cannot start is reported with what it printed`() throws {
    let error = #expect(throws: NBDServerError.self) {
      try NBDServer.run(NBDServerCommand(plugin: "memory", parameters: ["size=10X"])) { _ in }
    }
    #expect(error?.description.contains("unknown suffix") == true)
  }

  @Test func `a server that died is reported though the test itself was content`() throws {
    let error = #expect(throws: NBDServerError.self) {
      try NBDServer.run(NBDServerCommand(plugin: "memory", parameters: ["size=1M"])) { server in
        if let pid = server.pid { kill(pid, SIGABRT) }
        _ = Deadline(secondsFromNow: 10).wait { server.exitStatus != nil }
      }
    }
    #expect(error?.description.contains("signal 6") == true)
  }

  @Test func `a server that hangs is killed, which frees its clients`() throws {
    let command = shellServer("pread=sleep 3")
    let error = #expect(throws: NBDServerError.self) {
      try NBDServer.run(command, lifetimeSecondsMax: 1) { server in
        // The killed server ends the wait for this answer.
        _ = try NBDClient(socketPath: server.socketPath).read(1, at: 0)
      }
    }
    #expect(error?.description.contains("signal 9") == true)
  }

  @Test func `an error of the plugin arrives with its number`() throws {
    try NBDServer.run(shellServer("pread=echo ENOSPC none left >&2; exit 1")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      #expect(throws: NBDError.self) { try client.read(1, at: 0) }
      let command = try client.startRead(1, at: 0)
      let error = #expect(throws: NBDError.self) { try NBDClient.finish([client]) }
      #expect(error?.code == ENOSPC)
      #expect(client.commandsInFlight == 0)
      if case .failure(let own)? = command.result { #expect(own.code == ENOSPC) } else { Issue.record("no error") }
    }
  }

  @Test func `the random requests notice a server that forgets writes`() throws {
    try NBDServer.run(shellServer()) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var requests = RandomRequests(.bytes, client, range: 0..<65_536, SeededGenerator(seed: 1))
      #expect(throws: CheckFailure.self) { try requests.run(50) }
    }
  }

  @Test func `data that block status calls zero is noticed`() throws {
    var disk = ExpectedBytes(range: 100..<300)
    disk.write([1], at: 200)
    let zero = AllocationExtent(offset: 100, byteCount: 100, state: [.hole, .zero])
    try disk.checkZeroes(of: [zero, AllocationExtent(offset: 200, byteCount: 1, state: .data)])
    for state in [AllocationState.zero, [.hole, .zero]] {
      #expect(throws: CheckFailure.self) {
        try disk.checkZeroes(of: [zero, AllocationExtent(offset: 200, byteCount: 1, state: state)])
      }
    }
  }

  @Test func `the random requests notice a server that has no holes where it should`() throws {
    let command = NBDServerCommand(plugin: "memory", parameters: ["size=4100001"], options: ["--filter=noextents"])
    try NBDServer.run(command) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      var requests = RandomRequests(.extent, client, range: 0..<4_100_001, SeededGenerator(seed: 1))
      #expect(throws: CheckFailure.self) { try requests.run(100) }
    }
  }

  @Test func `the bytes of a pattern are never zero`() {
    var generator = SeededGenerator(seed: 7)
    for count in [0, 1, 7, 8, 9, 10_001] {
      let bytes = generator.pattern(count)
      #expect(bytes.count == count && !bytes.contains(0))
    }
  }
}
