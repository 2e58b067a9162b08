import Bytes
import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct `The control socket of a server` {
  /// The kind and the permissions of what is at a path; nil where nothing is.
  private func mode(of path: String) -> mode_t? {
    var status = stat()
    return lstat(path, &status) == 0 ? status.st_mode : nil
  }

  private static let hello = #"{"jsonrpc":"2.0","id":1,"method":"control.hello","params":{"version":1}}"#

  private func serve(
    _ store: String, _ parameters: [String] = [], options: [String] = [], _ body: (NBDServer) throws -> Void
  ) throws {
    try NBDServer.run(PluginUnderTest.command(store: store, parameters, options: options), body)
  }

  @Test func `it is beside the store, for its owner alone, and goes with the server`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      let old = umask(0)
      defer { umask(old) }
      try serve(store, ["size=1M"]) { server throws in
        #expect(mode(of: store + ".sock") == S_IFSOCK | 0o600)
        #expect(ControlSocket.path(forStore: store) == store + ".sock")
        let info = try ControlClient(path: store + ".sock").call(GetStoreInfo())
        #expect(info.pid == server.pid)
        #expect(info.path == store)
        #expect(info.protocolVersion == ControlProtocol.version)
      }
      #expect(mode(of: store + ".sock") == nil)
    }
  }

  @Test func `control= says where it is, or that there is none`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      let path = directory.file("control")
      try serve(store, ["size=1M", "control=\(path)"]) { _ throws in
        #expect(mode(of: path) == S_IFSOCK | 0o600)
        #expect(mode(of: store + ".sock") == nil)
        #expect(try ControlClient(path: path).call(Hello()).version == 1)
      }
      #expect(mode(of: path) == nil)
      try serve(store, ["control=off"]) { server throws in
        #expect(mode(of: store + ".sock") == nil)
        #expect(try NBDClient(socketPath: server.socketPath).size() == 1 << 20)
      }
      let memory = try NBDServer.runToEnd(["-U", "-", PluginUnderTest.path(), "memory=1M", "control=\(path)"])
      #expect(memory.standardError.contains("control= means nothing together with memory="))
    }
  }

  @Test func `its path may be longer than a socket's address, and its name too`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file(String(repeating: "long-", count: 40) + ".lacuna")
      try serve(store, ["size=1M"]) { _ throws in
        #expect(mode(of: store + ".sock") == S_IFSOCK | 0o600)
        #expect(try ControlClient(path: store + ".sock").call(Hello()).version == 1)
      }
      #expect(mode(of: store + ".sock") == nil)
    }
  }

  @Test func `that of a dead server is replaced`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=1M"]) { try $0.kill() }
      #expect(mode(of: store + ".sock") == S_IFSOCK | 0o600)
      let error = #expect(throws: LacunaError.self) { _ = try ControlClient(path: store + ".sock") }
      #expect(error?.description.contains("its server has died") == true)
      try serve(store) { server throws in
        #expect(try ControlClient(path: store + ".sock").call(GetStoreInfo()).pid == server.pid)
      }
      #expect(mode(of: store + ".sock") == nil)
    }
  }

  @Test func `that of a live server is not taken away by another one`() throws {
    try PrivateDirectory.run { directory in
      let (store, other) = (directory.file("s.lacuna"), directory.file("other.lacuna"))
      try serve(store, ["size=1M"]) { server throws in
        let refused = try NBDServer.runToEnd(
          ["-U", "-", PluginUnderTest.path(), other, "size=1M", "control=\(store).sock", "--run", "true"])
        #expect(refused.status == .exited(1))
        #expect(refused.standardError.contains("another server listens on the control socket"))
        let info = try ControlClient(path: store + ".sock").call(GetStoreInfo())
        #expect(info.pid == server.pid)
        #expect(info.path == store)
        // The same store, which is locked.
        let same = try NBDServer.runToEnd(["-U", "-", PluginUnderTest.path(), store, "--run", "true"])
        #expect(same.standardError.contains("in use"))
        #expect(try ControlClient(path: store + ".sock").call(GetStoreInfo()).pid == server.pid)
      }
    }
  }

  @Test func `a file that is no socket stays, and no store is served whose socket would be there`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try write([1, 2, 3], toFile: store + ".sock")
      for parameters in [["size=1M"], ["control=\(store).sock"]] {
        let refused = try NBDServer.runToEnd(
          ["-U", "-", PluginUnderTest.path(), store] + parameters + ["--run", "true"])
        #expect(refused.status == .exited(1))
        #expect(
          refused.standardError.contains("is there and is no socket; remove it, or say where to listen, with control="))
      }
      #expect(NBDTests.bytes(ofFile: store + ".sock") == [1, 2, 3])
      try serve(store, ["control=off"]) { server throws in
        #expect(try NBDClient(socketPath: server.socketPath).size() == 1 << 20)
      }
    }
  }

  @Test func `of two servers that only read one store, the second is served without`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=1M"]) { _ in }
      chmod(store, 0o400)
      let launcher = geteuid() == 0 ? ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] : []
      func reader(_ body: (NBDServer) throws -> Void) throws {
        var command = try PluginUnderTest.command(store: store)
        command.launcher = launcher
        try NBDServer.run(command, body)
      }
      try reader { first throws in
        try reader { second throws in
          #expect(second.standardError.contains("warning: another server listens on the control socket"))
          #expect(try NBDClient(socketPath: second.socketPath).isReadOnly())
          #expect(try ControlClient(path: store + ".sock").call(GetStoreInfo()).pid == first.pid)
        }
      }
    }
  }

  @Test func `a server that went into the background is known by its own number, and by the store's file`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      let (socket, pidfile) = (directory.file("nbd.sock"), directory.file("pid"))
      let started = try NBDServer.runToEnd(
        ["-U", socket, "-P", pidfile, PluginUnderTest.path(), "store=\(store)", "size=1M"])
      #expect(started.status == .exited(0), "\(started.standardError)")
      // The one in the foreground may end before the other has written its number.
      func number() -> Int32? { Int32(directory.text(of: "pid").filter { $0.isNumber }) }
      _ = Deadline(secondsFromNow: 20).wait { number() != nil }
      let pid = try #require(number())
      defer {
        kill(pid, SIGTERM)
        _ = Deadline(secondsFromNow: 20).wait { access(pidfile, F_OK) != 0 || kill(pid, 0) != 0 }
      }
      // A user whose server it is not asks, as if only the store's lock told that it is one.
      let file = try #require(FoundFile(at: store))
      let holder = LockHolder.find(of: file)
      #expect(holder?.process == pid && holder?.isExclusive == true && holder?.name == "nbdkit")
      #expect(try ControlSocket.process(listeningAt: store + ".sock") == pid)
      let client = try ControlClient(path: store + ".sock", store: file)
      #expect(try client.call(GetStoreInfo()).pid == pid)
    }
  }

  @Test func `a server of another store is not asked about one that took its name`() throws {
    try PrivateDirectory.run { directory in
      let (store, moved) = (directory.file("s.lacuna"), directory.file("moved.lacuna"))
      try serve(store, ["size=1M"]) { _ in
        #expect(rename(store, moved) == 0)
        try serve(store, ["size=1M", "control=off"]) { _ throws in
          let file = try #require(FoundFile(at: store))
          let error = #expect(throws: LacunaError.self) { _ = try ControlClient(path: store + ".sock", store: file) }
          #expect(error?.code == .unreachable)
          #expect(error?.description.contains("serves another store than \(store)") == true)
        }
        let file = try #require(FoundFile(at: moved))
        #expect(try ControlClient(path: store + ".sock", store: file).call(GetStoreInfo()).volumes == 1)
      }
    }
  }

  @Test func `floods, rubbish and clients that stop reading harm neither data nor service`() throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        let store = directory.file("s.lacuna")
        try serve(store, ["size=16M"]) { server throws in
          let path = store + ".sock"
          let list = Array(#"{"jsonrpc":"2.0","id":1,"method":"volume.list","params":{"space":false}}"#.utf8)
          let rubbish = (0..<200).map { _ in generator.pattern(500) + [UInt8(ascii: "\n")] }
          let isOver = Locked(false)
          try inThreads(6) { index in
            if index == 0 {
              defer { isOver.withLock { $0 = true } }
              let client = try NBDClient(socketPath: server.socketPath)
              var disk = ExpectedBytes(byteCount: 16 << 20)
              for round in 0..<100 {
                let bytes = [UInt8](repeating: UInt8(round + 1), count: 65_536)
                let offset = UInt64(round % 200) * 70_001
                try client.write(bytes, at: offset)
                disk.write(bytes, at: offset)
                if round % 10 == 0 { try client.flush() }
                usleep(10_000)
              }
              try disk.check(client)
              return
            }
            while !isOver.withLock({ $0 }) {
              guard let raw = try? RawConnection(socketPath: path) else { continue }
              switch index {
              case 1: try? raw.send(Array(repeating: list + [10], count: 300).flatMap { $0 })  // And never reads.
              case 2: for line in rubbish { try? raw.send(line) }
              case 3: try? raw.send([UInt8](repeating: UInt8(ascii: "["), count: (1 << 20) + 10))
              case 4: try? raw.send(Array(Self.hello.utf8.prefix(40)))  // Half, and goes.
              default:
                for _ in 0..<50 { try? raw.send(line: Self.hello) }
                for _ in 0..<50 { _ = try? raw.receiveLine() }
              }
            }
          }
          #expect(try ControlClient(path: path).call(GetStoreInfo()).volumes == 1)
          #expect(server.standardError.isEmpty, "\(server.standardError)")
        }
      }
    }
  }

  @Test func `calls change what clients can open, while others read and write`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=1M"]) { server throws in
        let control = try ControlClient(path: store + ".sock")
        let client = try NBDClient(socketPath: server.socketPath)
        try client.write([1, 2, 3], at: 0)
        #expect(try control.call(CreateSnapshots(names: ["disk@a"])).snapshots.map(\.kind) == [.snapshot])
        try client.write([4, 5, 6], at: 0)
        _ = try control.call(CloneVolume(source: "disk@a", name: "vms/copy"))
        let copy = try NBDClient(socketPath: server.socketPath, exportName: "vms/copy")
        #expect(try copy.read(3, at: 0) == [1, 2, 3])
        let snapshot = try NBDClient(socketPath: server.socketPath, exportName: "disk@a")
        #expect(try snapshot.isReadOnly())
        #expect(try control.call(GetVolumeInfo(name: "vms/copy")).clients == 1)
        let busy = #expect(throws: LacunaError.self) { try control.call(DeleteVolumes(names: ["vms/copy"])) }
        #expect(busy?.code == .busy)
        let listed = try NBDNegotiation(socketPath: server.socketPath).list()
        #expect(listed.map(\.name) == ["disk", "disk@a", "vms/copy"])
        _ = try control.call(SetStore(defaultVolume: "vms/copy"))
        #expect(try NBDClient(socketPath: server.socketPath).canonicalExportName() == "vms/copy")
        _ = try control.call(ResizeVolume(name: "disk", size: 2 << 20))
        #expect(try client.size() == 1 << 20)
        #expect(try NBDClient(socketPath: server.socketPath, exportName: "disk").size() == 2 << 20)
        _ = try control.call(DeleteVolumes(names: ["vms/copy"], force: true))
        #expect(throws: NBDError.self) { try copy.read(3, at: 0) }
        #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath, exportName: "vms/copy") }
        #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
        #expect(try client.read(3, at: 0) == [4, 5, 6])
      }
    }
  }

  @Test func `throwaways are for one connection, or shared by name, and go with the last one`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=1M"]) { server throws in
        let control = try ControlClient(path: store + ".sock")
        func open(_ name: String) throws -> NBDClient { try NBDClient(socketPath: server.socketPath, exportName: name) }
        func throwaways() throws -> [String] {
          try control.call(ListVolumes(kind: .throwaway)).volumes.map(\.name)
        }
        let disk = try open("disk")
        try disk.write([1], at: 0)
        _ = try control.call(CreateSnapshots(names: ["disk@a"]))
        let (one, two) = (try open("disk@a+"), try open("disk@a+"))
        try one.write([2], at: 0)
        #expect(try two.read(1, at: 0) == [1])
        // A client that took several connections for one disk would see several.
        #expect(try !one.canMultiConn())
        let (shared, same) = (try open("disk+x"), try open("disk+x"))
        try shared.write([3], at: 0)
        #expect(try same.read(1, at: 0) == [3])
        #expect(try same.canMultiConn())
        #expect(try disk.read(1, at: 0) == [1])
        #expect(try throwaways() == ["disk+x", "disk@a+", "disk@a+"])
        #expect(try control.call(GetStoreInfo()).throwaways == 3)
        let several = #expect(throws: LacunaError.self) { try control.call(PromoteVolume(name: "disk@a+", to: "kept")) }
        #expect(several?.code == .busy)
        try one.disconnect()
        try two.disconnect()
        let areGone = try Deadline(secondsFromNow: 10).wait { try throwaways() == ["disk+x"] }
        #expect(areGone)
        #expect(try control.call(PromoteVolume(name: "disk+x", to: "kept")).clients == 2)
        #expect(try throwaways() == [])
        try shared.disconnect()
        try same.write([4], at: 1)
        #expect(try control.call(GetVolumeInfo(name: "kept")).kind == .volume)
        let busy = #expect(throws: LacunaError.self) { try control.call(DeleteVolumes(names: ["kept"])) }
        #expect(busy?.code == .busy)
        try same.disconnect()
        #expect(try open("kept").read(2, at: 0) == [3, 4])
        // A new one of the same name begins anew.
        #expect(try open("disk+x").read(2, at: 0) == [1, 0])
        for name in ["disk@no+", "no+", "no+x", "+", "disk@a..", "disk++"] {
          let error = #expect(throws: NBDError.self) { try open(name) }
          #expect(error?.code == ENOENT || error?.code == EINVAL, "\(name): \(String(describing: error))")
        }
      }
    }
  }

  @Test func `a difference has the newer bytes, and marks what did not change and what became zero`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      let block: UInt64 = 4096
      func extents(_ runs: [(UInt64, AllocationState)]) -> [AllocationExtent] {
        var next: UInt64 = 0
        return runs.map { count, state in
          defer { next += count * block }
          return AllocationExtent(offset: next, byteCount: count * block, state: state)
        }
      }
      try serve(store, ["size=1M"]) { server throws in
        let control = try ControlClient(path: store + ".sock")
        let disk = try NBDClient(socketPath: server.socketPath)
        try disk.write([UInt8](repeating: 1, count: 64 * Int(block)), at: 0)
        _ = try control.call(CreateSnapshots(names: ["disk@a"]))
        try disk.write([UInt8](repeating: 2, count: 8 * Int(block)), at: 8 * block)
        try disk.trim(8 * block, at: 32 * block)
        try disk.write([UInt8](repeating: 3, count: 4 * Int(block)), at: 100 * block)
        _ = try control.call(CreateSnapshots(names: ["disk@b"]))
        try disk.write([9], at: 0)
        let difference = try NBDClient(socketPath: server.socketPath, exportName: "disk@a..b")
        #expect(try difference.isReadOnly())
        #expect(try difference.size() == 1 << 20)
        let newer = try NBDClient(socketPath: server.socketPath, exportName: "disk@b")
        #expect(try difference.read(1 << 20, at: 0) == newer.read(1 << 20, at: 0))
        #expect(
          try difference.allocation(of: 0..<1 << 20)
            == extents([
              (8, .hole), (8, .data), (16, .hole), (8, [.hole, .zero]), (60, .hole), (4, .data), (152, .hole),
            ]))
        // Ranges that begin and end inside of something.
        #expect(
          try difference.allocation(of: 10 * block..<34 * block).map(\.state) == [.data, .hole, [.hole, .zero]])
        let same = try NBDClient(socketPath: server.socketPath, exportName: "disk@b..b")
        #expect(try same.allocation(of: 0..<1 << 20) == extents([(256, .hole)]))
        var found: [VolumeDiff.Extent] = []
        var offset: UInt64?
        repeat {
          let diff = try control.call(DiffVolumes(from: "disk@a", to: "disk@b", offset: offset, limit: 1))
          found += diff.extents
          offset = diff.next
        } while offset != nil
        #expect(found.map(\.offset) == [8 * block, 32 * block, 100 * block])
        #expect(found.map(\.length) == [8 * block, 8 * block, 4 * block])
        #expect(found.map(\.kind) == [.data, .zero, .data])
        // Of the volume as it is now.
        #expect(try control.call(DiffVolumes(from: "disk@b", to: "disk")).extents.map(\.offset) == [0])
        for name in ["disk@a..c", "disk@c..a", "no@a..b", "disk@a..b+"] {
          let error = #expect(throws: NBDError.self) {
            _ = try NBDClient(socketPath: server.socketPath, exportName: name)
          }
          #expect(error?.code == ENOENT || error?.code == EINVAL, "\(name): \(String(describing: error))")
        }
        // Snapshots that are gone while it is open: one clear error, and the server goes on.
        let busy = #expect(throws: LacunaError.self) { try control.call(DeleteVolumes(names: ["disk@a"])) }
        #expect(busy?.code == .busy)
        _ = try control.call(DeleteVolumes(names: ["disk@a", "disk@b"], force: true))
        #expect(throws: NBDError.self) { _ = try difference.read(1, at: 0) }
        #expect(try disk.read(1, at: 0) == [9])
      }
    }
  }

  @Test func `a check while clients write finds nothing, reports how far it is, and ends with who asked for it`() throws
  {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=256M"]) { server throws in
        let client = try NBDClient(socketPath: server.socketPath)
        for index in 0..<128 {
          try client.write([UInt8](repeating: UInt8(index + 1), count: 1 << 20), at: UInt64(index) << 20)
        }
        let control = try ControlClient(path: store + ".sock")
        var reports: [Progress] = []
        let result = try control.call(CheckStore(data: true)) { reports.append($0) }
        #expect(result.findings.isEmpty, "\(result.findings)")
        #expect(result.volumes == 1)
        #expect(result.accounts.exclusive == 128 << 20)
        let info = try control.call(GetStoreInfo())
        let accounts = result.accounts
        #expect(accounts.nodes + accounts.exclusive + accounts.shared + accounts.fixed == info.used)
        #expect(!reports.isEmpty)
        let dump = try control.call(DumpBlock(block: 0))
        #expect(dump.kind == "superblock")
        #expect(dump.fields.contains { $0.value.contains(info.uuid) }, "\(dump)")
        let outside = #expect(throws: LacunaError.self) { try control.call(DumpBlock(block: .max)) }
        #expect(outside?.code == .outOfRange)
        #expect(reports.allSatisfy { $0.done <= $0.total ?? 0 && $0.unit == .blocks })
        // One who asks and goes.
        for _ in 0..<3 {
          let raw = try RawConnection(socketPath: store + ".sock")
          try raw.send(line: #"{"jsonrpc":"2.0","id":1,"method":"store.check","params":{"data":true}}"#)
        }
        #expect(try control.call(CheckStore()).findings.isEmpty)
      }
    }
  }

  @Test func `statistics count what clients did`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=16M"]) { server throws in
        let control = try ControlClient(path: store + ".sock")
        func work() throws {
          let client = try NBDClient(socketPath: server.socketPath)
          for index in 0..<10 { try client.write([UInt8](repeating: 1, count: 8192), at: UInt64(index) * 8192) }
          for index in 0..<7 { _ = try client.read(4096, at: UInt64(index) * 4096) }
          try client.zero(4096, at: 0)
          try client.trim(8192, at: 8192)
          try client.flush()
          #expect(throws: NBDError.self) { try client.write([1], at: 16 << 20) }
          try client.disconnect()
        }
        try work()
        let isClosed = try Deadline(secondsFromNow: 10).wait { try control.call(GetStatistics()).clients == 0 }
        #expect(isClosed)
        try work()
        let statistics = try control.call(GetStatistics())
        #expect(statistics.writes.count == 20)
        #expect(statistics.writes.bytes == 20 * 8192)
        #expect(statistics.reads.count == 14)
        #expect(statistics.reads.bytes == 14 * 4096)
        #expect(statistics.zeroes.count == 2)
        #expect(statistics.trims.bytes == 2 * 8192)
        #expect(statistics.flushes.count >= 2)
        #expect(statistics.commits.flushes >= 2)
        #expect(statistics.commits.count >= 1)
        for operations in [statistics.writes, statistics.reads, statistics.zeroes, statistics.trims] {
          #expect(operations.latency.buckets.reduce(0, +) == operations.count)
          #expect(operations.latency.seconds > 0)
          #expect(operations.errors == 0)
        }
        #expect(statistics.device.bytesWritten > 20 * 8192)
        #expect(statistics.device.syncs >= 1)
        #expect(statistics.journal.written > 0)
        #expect(statistics.journal.size == 16 << 20)
        #expect(statistics.checkpoints.count >= 1)
        #expect(statistics.seconds > 0)
        #expect((statistics.writeAmplification ?? 0) > 1)
      }
    }
  }

  @Test func `a list of more exports than nbdkit takes ends early, and all can be opened`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("s.lacuna")
      try serve(store, ["size=1M"]) { server throws in
        let control = try ControlClient(path: store + ".sock")
        for index in 0..<100 { _ = try control.call(CreateVolume(name: "v\(index)", size: 1 << 20)) }
        for round in 0..<105 { _ = try control.call(CreateSnapshots(names: (0..<100).map { "v\($0)@\(round)" })) }
        let start = ContinuousClock.now
        #expect(try NBDNegotiation(socketPath: server.socketPath).list().count == 10_000)
        #expect(ContinuousClock.now - start < .seconds(5))
        #expect(try NBDClient(socketPath: server.socketPath, exportName: "v99@104").isReadOnly())
        var names: [String] = []
        var after: String?
        repeat {
          let list = try control.call(ListVolumes(after: after, limit: 4_000))
          names += list.volumes.map(\.name)
          after = list.next
        } while after != nil
        #expect(names.count == 10_601)
        #expect(names == names.sorted { $0.utf8.lexicographicallyPrecedes($1.utf8) })
        #expect(Set(names).count == names.count)
      }
    }
  }
}
