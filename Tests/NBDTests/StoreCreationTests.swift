import Bytes
import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// How often a server is killed while it makes a store; the environment variable LACUNA_KILLS sets another number.
private let killCount = getenv("LACUNA_KILLS").flatMap { Int(String(cString: $0)) } ?? 25

@Suite struct `Making a store` {
  private func names(in directory: PrivateDirectory) -> [String] {
    guard let stream = opendir(directory.path) else { return [] }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      if name != "." && name != ".." { names.append(name) }
    }
    return names
  }

  private func arguments(_ parameters: [String]) throws -> [String] {
    ["-U", "-", try PluginUnderTest.path()] + parameters + ["--run", "true"]
  }

  @Test(arguments: [("1000001", "65 of them"), ("513", "1 of them"), ("512", nil)] as [(String, String?)])
  func `a volume whose last part QEMU cannot write is made with a warning`(size: String, words: String?) throws {
    try PrivateDirectory.run { directory in
      for parameters in [["size=\(size)"], ["volume=second", "size=\(size)"], []] {
        try ServedStore.run(directory.file("s.lacuna"), parameters) { store in
          let warns = store.server.standardError.contains("lacuna: warning: the size of ")
          #expect(warns == (words != nil && !parameters.isEmpty), "\(store.server.standardError)")
          if let words, warns { #expect(store.server.standardError.contains(words)) }
        }
      }
    }
  }

  @Test func `a server that is killed while it makes a store leaves a whole store or none`() throws {
    try withSeededGenerator { generator in
      // Of some runs, since the first one loads the plugin.
      let duration =
        try (0..<4).map { _ in
          try PrivateDirectory.run { directory in
            try ContinuousClock().measure {
              _ = try NBDServer.runToEnd(try arguments([directory.file("disk"), "size=1T"]))
            }
          }
        }.min() ?? .zero
      let seconds = Double(duration.components.attoseconds) / 1e18 + Double(duration.components.seconds)
      var storeCount = 0
      for _ in 0..<killCount {
        try PrivateDirectory.run { directory in
          let store = directory.file("disk.lacuna")
          let killed = try NBDServer.runToEnd(
            ["-f", "-U", directory.file("sock"), try PluginUnderTest.path(), store, "size=1T"],
            secondsMax: Double.random(in: 0...seconds * 1.5, using: &generator))
          // Sockets may stay behind, and the next server replaces its own.
          let left = names(in: directory).filter { !$0.hasSuffix("sock") }
          #expect(left.count <= 1, "\(left)")
          if let name = left.first, name != "disk.lacuna" {
            #expect(name.hasPrefix(".disk.lacuna.") && name.hasSuffix(".new"), "\(name)")
          }
          // What is there under the store's name has its volume as well.
          let isThere = access(store, F_OK) == 0
          if isThere { storeCount += 1 }
          let opened = try NBDServer.runToEnd(try arguments([store] + (isThere ? [] : ["size=1T"])))
          #expect(opened.status == .exited(0), "\(killed.status), then \(opened.standardError)")
        }
      }
      print("stores that were there after a kill: \(storeCount) of \(killCount)")
    }
  }

  @Test func `of servers that make one store at the same time one serves it and the others say that it is in use`()
    throws
  {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      let count = 4
      let finished = Locked<[FinishedCommand]>([])
      let plugin = try PluginUnderTest.path()
      try inThreads(count) { _ in
        let result = try NBDServer.runToEnd(
          ["-U", "-", plugin, store, "size=10M", "--run", "sleep 1"], secondsMax: 25)
        finished.withLock { $0.append(result) }
      }
      let results = finished.withLock { $0 }
      #expect(results.contains { $0.status == .exited(0) })
      for result in results where result.status != .exited(0) {
        #expect(result.standardError.contains("in use"), "\(result.standardError)")
      }
      #expect(names(in: directory) == ["disk.lacuna"])
    }
  }

  @Test func `a store whose volume cannot be made leaves nothing`() throws {
    try PrivateDirectory.run { directory in
      let name = String(repeating: "x", count: 3000)
      let failed = try NBDServer.runToEnd(
        try arguments([directory.file("disk.lacuna"), "size=10M", "volume=\(name)"]))
      #expect(failed.status == .exited(1))
      #expect(names(in: directory) == [])
    }
  }
}
