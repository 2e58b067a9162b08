import LacunaTestSupport
import NBDTestSupport
import Testing

/// The protocol's request numbers.
private enum Request: UInt16, CaseIterable {
  case read = 0
  case write, disconnect, flush, trim, cache, zeroes, blockStatus
}

/// One way to misbehave on a connection.
private struct Misdeed: Sendable, CustomTestStringConvertible {
  var testDescription: String
  var commit: @Sendable (RawConnection) throws -> Void
  var writesAnywhere: Bool

  init(
    _ description: String, writesAnywhere: Bool = false, _ commit: @escaping @Sendable (RawConnection) throws -> Void
  ) {
    self.writesAnywhere = writesAnywhere
    testDescription = description
    self.commit = commit
  }
}

// Every misdeed waits for the answers to what it asked before it hangs up: nbdkit 1.32.5 may itself abort when a
// client goes away with requests in flight (fixed upstream in 1.33.10), and that would say nothing of the plugin.
private let misdeeds: [Misdeed] = [
  Misdeed("hangs up at once") { _ in },
  Misdeed("hangs up after the greeting") { _ = try $0.receive(18) },
  Misdeed("speaks HTTP") {
    try $0.send(Array("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".utf8))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends half a client flags word") {
    _ = try $0.receive(18)
    try $0.send([0, 0])
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends half an option") {
    _ = try $0.receive(18)
    try $0.send(bigEndian(UInt32(3)) + RawConnection.option(7, [])[..<10])
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("promises an option of 4 GiB") {
    _ = try $0.receive(18)
    try $0.send(bigEndian(UInt32(3)) + RawConnection.option(7, [1, 2, 3], byteCount: .max))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends a go option whose name is longer than the option") {
    _ = try $0.receive(18)
    try $0.send(bigEndian(UInt32(3)) + RawConnection.option(7, bigEndian(UInt32(5_000)) + [0, 0, 0, 0]))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("asks for a name that is no UTF-8 and has a zero byte") {
    _ = try $0.receive(18)
    let name: [UInt8] = [0xff, 0xfe, 0x00, 0xc3, 0x28]
    try $0.send(bigEndian(UInt32(3)) + RawConnection.option(7, bigEndian(UInt32(5)) + name + [0, 0]))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends garbage for a request") {
    try $0.handshake()
    try $0.send([UInt8](repeating: 0xa5, count: 5_000))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends half a request header") {
    try $0.handshake()
    try $0.send(Array(RawConnection.request(type: Request.read.rawValue, offset: 0, byteCount: 512)[..<13]))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends half of the bytes of a write") {
    try $0.handshake()
    try $0.send(RawConnection.request(type: Request.write.rawValue, offset: 0, byteCount: 65_536))
    try $0.send([UInt8](repeating: 0xee, count: 30_000))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("announces a write of 4 GiB") {
    try $0.handshake()
    try $0.send(RawConnection.request(type: Request.write.rawValue, offset: 0, byteCount: .max))
    try $0.finishSendingAndWaitForHangUp()
  },
  Misdeed("sends every request with every awkward range and flag", writesAnywhere: true) { connection in
    try connection.handshake()
    for type in [0, 4, 5, 6, 7, 3, 8, 77, 0xffff] as [UInt16] {
      for flags in [0, 1, 2, 4, 8, 16, 0xffff] as [UInt16] {
        for offset in [0, 4_095, (64 << 20) - 1, 64 << 20, 1 << 63, UInt64.max] as [UInt64] {
          for byteCount in [0, 1, 4_096, 64 << 20, UInt32.max] as [UInt32] {
            // A read of the whole disk is a right of the client; leave its 64 MiB out.
            if type == 0 && byteCount == 64 << 20 { continue }
            try connection.send(
              RawConnection.request(type: type, flags: flags, offset: offset, byteCount: byteCount))
            guard let error = try connection.replyError() else { return }
            if type == 0 && error == 0 { _ = try connection.receive(Int(byteCount)) }
          }
        }
      }
    }
    try connection.finishSendingAndWaitForHangUp()
  },
]

@Suite struct `Clients that misbehave` {
  @Test(arguments: Engine.allCases, misdeeds)
  private func `do not harm the server or its other clients`(_ engine: Engine, _ misdeed: Misdeed) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let bystander = try NBDClient(socketPath: server.socketPath)
      try bystander.write([1, 2, 3], at: 32 << 20)
      for _ in 0..<5 {
        let connection = try RawConnection(socketPath: server.socketPath)
        try misdeed.commit(connection)
      }
      #expect(try NBDClient(socketPath: server.socketPath).read(4, at: 0).count == 4)
      // Half a write that never came, and requests past the end, changed nothing here.
      if !misdeed.writesAnywhere {
        #expect(try bystander.read(5, at: (32 << 20) - 1) == [0, 1, 2, 3, 0])
      }
      #expect(try bystander.read(30_000, at: 0).allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: Engine.allCases)
  func `random bytes after the handshake or instead of it do not stop the server`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      try withSeededGenerator { generator in
        for _ in 0..<150 {
          let connection = try RawConnection(socketPath: server.socketPath)
          switch Int.random(in: 0..<4, using: &generator) {
          case 0: break
          case 1:
            _ = try connection.receive(18)
            try connection.send(bigEndian(UInt32(3)))
          case 2:
            _ = try connection.receive(18)
            try connection.send(bigEndian(UInt32(3)))
            let data = generator.pattern(Int.random(in: 0..<600, using: &generator))
            try connection.send(RawConnection.option(UInt32.random(in: 2..<12, using: &generator), data))
          default: try connection.handshake()
          }
          try connection.send(generator.pattern(Int.random(in: 1..<3_000, using: &generator)))
          try connection.finishSendingAndWaitForHangUp()
        }
        #expect(try NBDClient(socketPath: server.socketPath).read(4, at: 0) == [0, 0, 0, 0])
      }
    }
  }

  // One request at a time, each answered before the next: its ranges and flags are what is random.
  @Test(arguments: Engine.allCases)
  func `random requests are each answered`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "1000001")) { server in
      try withSeededGenerator { generator in
        let connection = try RawConnection(socketPath: server.socketPath)
        try connection.handshake()
        for step in 0..<3_000 {
          let type = [0, 3, 4, 5, 6, 7, 9].randomElement(using: &generator) ?? 0
          let offset: UInt64 =
            Bool.random(using: &generator)
            ? .random(in: 0..<1_100_000, using: &generator)
            : generator.next() >> UInt64.random(in: 0..<64, using: &generator)
          let byteCount = UInt32.random(in: 0...(1 << UInt32.random(in: 0...17, using: &generator)), using: &generator)
          // Most flags suit no request, or only one; none and FUA get further.
          let flags =
            Bool.random(using: &generator)
            ? .random(in: 0...1, using: &generator) : UInt16.random(in: 0..<32, using: &generator)
          try connection.send(
            RawConnection.request(
              type: UInt16(type), flags: flags, cookie: UInt64(step), offset: offset, byteCount: byteCount))
          let error = try #require(try connection.replyError(), "hung up at step \(step)")
          if type == 0 && error == 0 { _ = try connection.receive(Int(byteCount)) }
        }
        try connection.finishSendingAndWaitForHangUp()
      }
    }
  }
}
