import Glibc
import Lacuna
import NBDTestSupport
import Testing

@Suite struct `Exports that a server is bounded to` {
  /// Serves a store of vm1 with a snapshot, and the volumes job/1 and job/2, with `parameters`.
  private func serve(_ parameters: [String], _ body: (ServedStore) throws -> Void) throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      try ServedStore.run(path, ["volume=vm1", "size=1M"]) { store in
        try store.open("vm1").write([1], at: 0)
        _ = try store.control.call(CreateSnapshots(names: ["vm1@a"]))
        try store.open("vm1").write([2], at: 0)
        _ = try store.control.call(CreateSnapshots(names: ["vm1@b"]))
        for name in ["job/1", "job/2"] { _ = try store.control.call(CreateVolume(name: name, size: 1 << 20)) }
      }
      try ServedStore.run(path, parameters, body)
    }
  }

  private func expectRefusal(_ store: ServedStore, _ names: [String]) {
    for name in names {
      let error = #expect(throws: NBDError.self, "\(name)") { _ = try store.open(name) }
      #expect(error?.code == ENOENT, "\(name): \(String(describing: error))")
    }
  }

  @Test func `what is allowed can be opened and is listed, and nothing else`() throws {
    try serve(["allow=job/*", "allow=vm1:ro"]) { store in
      let listed = try NBDNegotiation(socketPath: store.server.socketPath).list().map(\.name)
      #expect(listed == ["job/1", "job/2", "vm1"])
      try store.open("job/1").write([7], at: 0)
      #expect(try store.contents("job/1").first == 7)
      #expect(try store.contents("vm1").first == 2)
      expectRefusal(
        store, ["vm1@a", "vm1@a..b", "vm1+", "vm1+x", "vm1@a+x", "job/1+", "job/1@a", "job", "job/", "vm1\u{301}"])
      // A refused client harms nobody, and the store is managed as ever.
      _ = try store.control.call(CreateVolume(name: "vm2", size: 1 << 20))
      expectRefusal(store, ["vm2"])
    }
  }

  @Test func `reading only is reading only, whatever the volume is`() throws {
    try serve(["allow=vm1:ro", "allow=vm1@a+*:ro"]) { store in
      for name in ["vm1", "vm1@a+", "vm1@a+x"] {
        let client = try store.open(name)
        #expect(try client.isReadOnly(), "\(name)")
        let error = #expect(throws: NBDError.self, "\(name)") { try client.write([9], at: 0) }
        #expect(error?.code == EPERM, "\(name)")
        #expect(try !client.canTrim(), "\(name)")
        #expect(try !client.canZero(), "\(name)")
      }
      #expect(try store.contents("vm1").first == 2)
    }
  }

  @Test func `the empty name stands for the default volume alone where that is allowed`() throws {
    try serve(["allow=job/*"]) { store in
      expectRefusal(store, [""])
      // Also when the default becomes another one meanwhile.
      _ = try store.control.call(SetVolume(name: "job/2", isDefault: true))
      try store.open("").write([5], at: 0)
      #expect(try store.contents("job/2").first == 5)
      _ = try store.control.call(SetVolume(name: "vm1", isDefault: true))
      expectRefusal(store, [""])
    }
    try serve(["allow=job/*", "volume=vm1@a+"]) { store in expectRefusal(store, [""]) }
  }

  @Test func `throwaways and differences go by patterns of their own`() throws {
    try serve(["allow=vm1@a+*"]) { store in
      #expect(try NBDNegotiation(socketPath: store.server.socketPath).list().isEmpty)
      let first = try store.open("vm1@a+one")
      try first.write([8], at: 0)
      #expect(try store.contents("vm1@a+one").first == 8)
      #expect(try store.contents("vm1@a+").first == 1)
      expectRefusal(store, ["vm1@a", "vm1@b+one", "vm1+one", "vm1@a..b", ""])
      try first.disconnect()
    }
    try serve(["allow=vm1@*"]) { store in
      let difference = try store.open("vm1@a..b")
      #expect(try difference.isReadOnly())
      expectRefusal(store, ["vm1", "vm1@a+"])
    }
    try serve(["allow=vm1@b:ro"]) { store in expectRefusal(store, ["vm1@a..b"]) }
  }

  @Test func `a disk in memory can be bounded too`() throws {
    let command = NBDServerCommand(plugin: try PluginUnderTest.path(), parameters: ["memory=1M", "allow=memory:ro"])
    try NBDServer.run(command) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      #expect(try client.isReadOnly())
    }
  }

  @Test(arguments: ["allow=", "allow=:ro", "allow=a:rw"])
  func `a pattern that names nothing ends nbdkit with a reason`(_ parameter: String) throws {
    let finished = try FinishedCommand.run(
      ["nbdkit", "-f", "-U", "-", try PluginUnderTest.path(), "memory=1M", parameter, "--run", "true"])
    #expect(finished.status != .exited(0))
    #expect(finished.standardError.contains("nbdkit: error: \(parameter): "), "\(finished.standardError)")
  }
}
