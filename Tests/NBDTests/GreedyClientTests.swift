import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// What many clients, or clients that ask for much, may cost.
@Suite struct `Clients that want much` {
  private static let mebibyte: UInt32 = 1 << 20

  /// A figure of the server's process, of /proc/PID/status, in KiB or as a number.
  private func status(_ server: NBDServer, _ key: String) throws -> Int {
    let pid = try #require(server.pid)
    let text = try FinishedCommand.run(["cat", "/proc/\(pid)/status"]).standardOutput
    let line = try #require(text.split(separator: "\n").first { $0.hasPrefix("\(key):") }, "\(text)")
    return try #require(line.split(whereSeparator: \.isWhitespace).dropFirst().first.flatMap { Int($0) })
  }

  /// Waits until the server's memory has not grown for a while, and returns it in MiB.
  private func settledMemory(_ server: NBDServer) throws -> Int {
    var last = -1
    var since = 0
    while since < 5 {
      usleep(100_000)
      let now = try status(server, "VmRSS") / 1024
      since = now > last ? 0 : since + 1
      last = max(last, now)
    }
    return try status(server, "VmRSS") / 1024
  }

  private func read(_ byteCount: UInt32, cookie: UInt64 = 1) -> [UInt8] {
    RawConnection.request(type: 0, cookie: cookie, offset: 0, byteCount: byteCount)
  }

  // Four clients, with 64 requests of 28 bytes each, once took 4 GiB.
  @Test(arguments: [2, 3, 32, 64] as [UInt32]) func `of answers that they do not take hold little memory`(
    _ mebibytes: UInt32
  ) throws {
    try NBDServer.run(PluginUnderTest.command(.disk, size: "128M")) { server in
      let before = try settledMemory(server)
      let connections = try (0..<4).map { _ in try RawConnection(socketPath: server.socketPath) }
      for connection in connections {
        try connection.handshake()
        for cookie in 0..<64 as Range<UInt64> { try connection.send(read(mebibytes * Self.mebibyte, cookie: cookie)) }
      }
      // nbdkit fills each thread's buffer once, one thread of a connection at a time, before it calls the plugin.
      let isSmall = Deadline(secondsFromNow: 30).wait {
        guard let now = try? settledMemory(server) else { return false }
        return now - before <= 4 * 16 * 2 + 32
      }
      let grown = try settledMemory(server) - before
      #expect(isSmall, "\(grown) MiB")
      #expect(try status(server, "VmHWM") / 1024 - before <= 4 * 2 * 64, "MiB")
      // Others are served meanwhile.
      #expect(try NBDClient(socketPath: server.socketPath).read(4, at: 0) == [0, 0, 0, 0])
      for connection in connections { try takeAnswers(of: connection, count: 64, mebibytes * Self.mebibyte) }
    }
  }

  /// Takes all answers to reads, so that nothing is in flight when the connection ends.
  private func takeAnswers(of connection: RawConnection, count: Int, _ byteCount: UInt32) throws {
    for _ in 0..<count {
      let error = try #require(try connection.replyError())
      #expect(error == (byteCount > 2 * Self.mebibyte ? 22 : 0))
      if error == 0 { _ = try connection.receive(Int(byteCount)) }
    }
  }

  @Test func `of long writes, which are refused, leave nothing of them in memory`() throws {
    try NBDServer.run(PluginUnderTest.command(.disk, size: "128M")) { server in
      let before = try settledMemory(server)
      let connection = try RawConnection(socketPath: server.socketPath)
      try connection.handshake()
      let bytes = [UInt8](repeating: 0xee, count: Int(32 * Self.mebibyte))
      // Enough for each thread to have had one.
      for cookie in 0..<48 as Range<UInt64> {
        try connection.send(
          RawConnection.request(type: 1, cookie: cookie, offset: 0, byteCount: UInt32(bytes.count)) + bytes)
        #expect(try connection.replyError() == 22)
      }
      #expect(try settledMemory(server) - before <= 32, "MiB")
      #expect(try NBDClient(socketPath: server.socketPath).read(4, at: 0) == [0, 0, 0, 0])
    }
  }

  // What the kernel has taken back of a buffer reads as zeroes: nothing of that may ever be an answer.
  @Test(arguments: Engine.allCases) func `get right answers after one that was refused`(_ engine: Engine) throws {
    try NBDServer.run(
      PluginUnderTest.command(engine),
      { server in
        let connection = try RawConnection(socketPath: server.socketPath)
        try connection.handshake()
        let bytes = (0..<Int(Self.mebibyte)).map { UInt8(truncatingIfNeeded: $0 / 4099 + 1) }
        try connection.send(RawConnection.request(type: 1, offset: 0, byteCount: Self.mebibyte) + bytes)
        #expect(try connection.replyError() == 0)
        for round in 0..<40 {
          try connection.send(read(round % 2 == 0 ? 33 * Self.mebibyte : Self.mebibyte))
          if round % 4 == 0 {
            let long = [UInt8](repeating: 0xee, count: Int(3 * Self.mebibyte))
            try connection.send(RawConnection.request(type: 1, offset: 0, byteCount: 3 * Self.mebibyte) + long)
          }
          var isRight = false
          for _ in 0..<(round % 4 == 0 ? 2 : 1) {
            let error = try connection.replyError()
            #expect(error == (round % 2 == 0 ? 22 : 0))
            if error == 0 { isRight = try connection.receive(Int(Self.mebibyte)) == bytes }
          }
          #expect(isRight == (round % 2 == 1))
        }
        // Trims and zeroes have no bytes with them, and may be as long as ever.
        for type in [4, 6] as [UInt16] {
          try connection.send(RawConnection.request(type: type, offset: 0, byteCount: 64 * Self.mebibyte))
          #expect(try connection.replyError() == 0)
        }
        try connection.send(read(Self.mebibyte))
        #expect(try connection.replyError() == 0)
        #expect(try connection.receive(Int(Self.mebibyte)).allSatisfy { $0 == 0 })
      })
  }

  @Test func `cause any number of errors fill no log`() throws {
    try NBDServer.run(PluginUnderTest.command(.disk)) { server in
      let connection = try RawConnection(socketPath: server.socketPath)
      try connection.handshake()
      for cookie in 0..<2_000 as Range<UInt64> {
        try connection.send(read(UInt32(3 * Self.mebibyte) + UInt32(cookie), cookie: cookie))
        #expect(try connection.replyError() == 22)
      }
      let lines = server.standardError.split(separator: "\n").filter { $0.contains("is refused") }
      #expect((5...8).contains(lines.count), "\(lines.count) lines, the last: \(lines.last ?? "")")
    }
  }

  @Test func `are as many as clients= says, and another one is let in when one goes`() throws {
    let command = try PluginUnderTest.command(.disk, filterParameters: ["clients=3"])
    try NBDServer.run(command) { server in
      var clients = try (0..<3).map { _ in try NBDClient(socketPath: server.socketPath) }
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
      #expect(server.standardError.contains("3 clients are connected, and no more are let in"))
      try clients[0].disconnect()
      clients.removeFirst()
      let isLetIn = Deadline(secondsFromNow: 5).wait { (try? NBDClient(socketPath: server.socketPath)) != nil }
      #expect(isLetIn)
      for client in clients { #expect(try client.read(1, at: 0) == [0]) }
    }
  }

  // 300 idle connections once took all descriptors and a processor, and wrote 85 MB of log.
  @Test func `only connect make room for others, and cost neither time nor descriptors nor log`() throws {
    var command = try PluginUnderTest.command(.disk, filterParameters: ["clients=20"])
    command.launcher = ["bash", "-c", #"ulimit -Sn 100 && exec "$@""#, "-"]
    try NBDServer.run(command) { server in
      let bystander = try NBDClient(socketPath: server.socketPath)
      // Some say nothing, and some stop in the middle of an option.
      let idle = try (0..<300).map { number in
        let connection = try RawConnection(socketPath: server.socketPath)
        if number % 2 == 0 { try connection.send(bigEndian(UInt32(3)) + RawConnection.option(7, [1, 2, 3])[..<10]) }
        return connection
      }
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
      let before = try processorTime(server)
      sleep(6)
      #expect(try processorTime(server) - before < 0.5)
      // Each of them takes the place of one that has been there for long.
      let others = try (0..<19).map { _ in try NBDClient(socketPath: server.socketPath) }
      for client in others + [bystander] { #expect(try client.read(1, at: 0) == [0]) }
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
      #expect(server.standardError.utf8.count < 4_000, "\(server.standardError.prefix(2_000))")
      #expect(!server.standardError.contains("Too many open files"))
      withExtendedLifetime(idle) {}
    }
  }

  /// What the server has used of the processors, in seconds.
  private func processorTime(_ server: NBDServer) throws -> Double {
    let pid = try #require(server.pid)
    let text = try FinishedCommand.run(["cat", "/proc/\(pid)/stat"]).standardOutput
    let fields = try #require(text.split(separator: ")").last).split(separator: " ")
    return (Double(fields[11]) ?? 0) / 100 + (Double(fields[12]) ?? 0) / 100
  }

  @Test func `are fewer where the process may not have as many descriptors, and that is said`() throws {
    var command = try PluginUnderTest.command(.disk, filterParameters: ["clients=100"])
    // No root, who may raise the limit.
    command.launcher = [
      "bash", "-c", #"ulimit -n 150 && exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource "$@""#, "-",
    ]
    if geteuid() != 0 { command.launcher = ["bash", "-c", #"ulimit -n 150 && exec "$@""#, "-"] }
    try NBDServer.run(command) { server in
      #expect(server.standardError.contains("100 clients need 428 descriptors"), "\(server.standardError)")
      #expect(server.standardError.contains("no more than 7 clients are let in"), "\(server.standardError)")
      let clients = try (0..<7).map { _ in try NBDClient(socketPath: server.socketPath) }
      #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
      for client in clients { #expect(try client.read(1, at: 0) == [0]) }
    }
  }

  @Test(arguments: ["0", "-1", "x", "", "10001", "1.5", "99999999999999999999"])
  func `are no other number than 1 to 10000`(_ value: String) throws {
    let finished = try NBDServer.runToEnd(["-f", PluginUnderTest.path(), "memory=1M", "clients=\(value)"])
    #expect(finished.status == .exited(1))
    #expect(
      finished.standardError.contains("clients=\(value): it is a number from 1 to 10000"), "\(finished.standardError)")
  }
}
