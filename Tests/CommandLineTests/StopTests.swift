import Glibc
import NBDTestSupport
import Testing

@Suite struct `Stopping a server` {
  /// Has nbdkit serve the store `s`, as a process of its own without a supervisor.
  private func startNBDKit(
    in directory: PrivateDirectory, _ options: [String] = [], launcher: [String] = []
  ) throws -> ChildProcess {
    try Program.run(["create", directory.file("s"), "--size", "64M"]).succeeded()
    let process = try ChildProcess(
      launcher + ["nbdkit", "-f", "-P", directory.file("pid")] + options + [try Program.plugin(), directory.file("s")],
      standardOutput: directory.file("out"), standardError: directory.file("err"), lifetimeSecondsMax: 120)
    let serves = Deadline(secondsFromNow: 30).wait {
      access(directory.file("pid"), F_OK) == 0 || process.exitStatus != nil
    }
    try #require(serves && process.exitStatus == nil, "\(directory.text(of: "err"))")
    return process
  }

  /// nbdsh comes with the system's Python, which need not be the first one in PATH.
  private static let nbdsh = ["env", "PATH=/usr/bin:/bin", "nbdsh", "-u"]

  @Test func `ends what lacuna serve keeps running, though a client is idle, and loses nothing`() throws {
    try PrivateDirectory.run { directory in
      try Program.run(["create", directory.file("s"), "--size", "64M"]).succeeded()
      let launcher = ["env", "LACUNA_PLUGIN=\(try Program.plugin())"]
      for round in 1...2 {
        try Program.run(
          ["serve", directory.file("s"), "--background", "--pidfile", directory.file("pid")], launcher: launcher
        ).succeeded()
        let pid = try #require(Int32(directory.text(of: "pid").filter(\.isNumber)))
        defer { kill(pid, SIGKILL) }
        let idle = try NBDClient(socketPath: directory.file("s.nbd"))
        if round == 2 { #expect(try idle.read(4096, at: 4096) == [UInt8](repeating: 1, count: 4096)) }
        try idle.write([UInt8](repeating: UInt8(round), count: 4096), at: 4096)
        let stopped = try Program.run(["stop", directory.file("s")]).succeeded().standardOutput
        #expect(stopped == "Stopped the server of \(directory.file("s"))\n")
        for name in ["s.nbd", "s.sock", "pid"] { #expect(access(directory.file(name), F_OK) != 0, "\(name)") }
        // It was hung up on, not answered with an error.
        let error = #expect(throws: NBDError.self) { try idle.read(4096, at: 4096) }
        #expect(error?.code != ESHUTDOWN)
        try Program.run(["check", directory.file("s"), "--data"]).succeeded()
        try Program.run(["stop", directory.file("s")]).refused(1, naming: ["is not served", directory.file("s")])
      }
    }
  }

  @Test func `ends an nbdkit that somebody else started, on a socket or a port`() throws {
    for options in [["-U", "SOCKET"], ["-i", "127.0.0.1", "-p", "PORT"]] {
      try PrivateDirectory.run { directory in
        let port = try FinishedCommand.run([
          "python3", "-c", "import socket; s = socket.socket(); s.bind(('127.0.0.1', 0)); print(s.getsockname()[1])",
        ]).standardOutput.filter(\.isNumber)
        let place = ["SOCKET": directory.file("nbd"), "PORT": port]
        let process = try startNBDKit(in: directory, options.map { place[$0] ?? $0 })
        defer { _ = process.waitForEnd(seconds: 0) }
        let uri = options[0] == "-U" ? "nbd+unix:///?socket=\(directory.file("nbd"))" : "nbd://127.0.0.1:\(port)"
        // A client that stays connected, which only says so.
        let idle = try ChildProcess(
          Self.nbdsh + [uri, "-c", "print(h.get_size(), flush=True)", "-c", "import time; time.sleep(100)"],
          standardOutput: directory.file("client"), standardError: directory.file("client-err"), lifetimeSecondsMax: 120
        )
        defer { _ = idle.waitForEnd(seconds: 0) }
        try #require(
          Deadline(secondsFromNow: 30).wait { !directory.text(of: "client").isEmpty },
          "\(directory.text(of: "client-err"))")
        let answer = try Program.run(["stop", directory.file("s"), "--json"]).succeeded().standardOutput
        #expect(answer.contains("\"pid\" : \(directory.text(of: "pid").filter(\.isNumber))\n"), "\(answer)")
        #expect(process.waitForEnd(seconds: 20) == .exited(0), "\(directory.text(of: "err"))")
        try Program.run(["check", directory.file("s")]).succeeded()
      }
    }
  }

  @Test func `what was under way is done, and answered or not; what was answered is there`() throws {
    try PrivateDirectory.run { directory in
      let process = try startNBDKit(in: directory, ["-U", directory.file("nbd")])
      defer { _ = process.waitForEnd(seconds: 0) }
      // Writes one block after the other, each with another value, and says how many were answered.
      let writer = try ChildProcess(
        Self.nbdsh + [
          "nbd+unix:///?socket=\(directory.file("nbd"))", "-c",
          """
          count = 0
          try:
            while True:
              h.pwrite(bytes([count % 255 + 1]) * 4096, count % 16384 * 4096)
              count += 1
              if count == 100: print("busy", flush=True)
          except nbd.Error as error:
            print(count, error.errnum, flush=True)
          """,
        ], standardOutput: directory.file("client"), standardError: directory.file("client-err"),
        lifetimeSecondsMax: 120)
      defer { _ = writer.waitForEnd(seconds: 0) }
      try #require(Deadline(secondsFromNow: 30).wait { directory.text(of: "client").contains("busy") })
      try Program.run(["stop", directory.file("s")], secondsMax: 60).succeeded()
      #expect(process.waitForEnd(seconds: 20) == .exited(0), "\(directory.text(of: "err"))")
      #expect(writer.waitForEnd(seconds: 30) == .exited(0), "\(directory.text(of: "client-err"))")
      let line =
        directory.text(of: "client").split(separator: "\n").last?.split(separator: " ").compactMap { Int($0) } ?? []
      let count = try #require(line.first)
      let command = NBDServerCommand(plugin: try Program.plugin(), parameters: [directory.file("s")])
      try NBDServer.run(command) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        for number in max(0, count - 16384)..<count {
          let bytes = try client.read(4096, at: UInt64(number % 16384) * 4096)
          // The last block of another lap may have been written without an answer.
          let later = number + 16384 == count ? UInt8(count % 255 + 1) : nil
          #expect(bytes.allSatisfy { $0 == UInt8(number % 255 + 1) || $0 == later }, "block \(number) of \(count)")
        }
        try client.disconnect()
      }
    }
  }

  @Test func `leaves to systemd what is systemd's`() throws {
    try PrivateDirectory.run { directory in
      let launcher = ["sh", "-c", "SYSTEMD_EXEC_PID=$$ exec \"$0\" \"$@\""]
      let process = try startNBDKit(in: directory, ["-U", directory.file("nbd")], launcher: launcher)
      defer { _ = process.waitForEnd(seconds: 0) }
      try Program.run(["stop", directory.file("s")]).refused(1, naming: ["systemd", "systemctl stop"])
      try Program.run(["info", directory.file("s")]).succeeded()
      process.send(SIGTERM)
      #expect(process.waitForEnd(seconds: 20) == .exited(0))
    }
  }

  @Test func `says so where nobody serves, and where there is no store`() throws {
    try PrivateDirectory.run { directory in
      try Program.run(["stop", directory.file("s")]).refused(1, naming: ["there is no store", directory.file("s")])
      try Program.run(["create", directory.file("s"), "--size", "1M"]).succeeded()
      try Program.run(["stop", directory.file("s")]).refused(1, naming: ["is not served", directory.file("s")])
    }
  }
}
