import Bytes
import Checksums
import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// The bytes of a file; empty where there is none.
func bytes(ofFile path: String) -> [UInt8] {
  guard let file = fopen(path, "re") else { return [] }
  defer { fclose(file) }
  var status = stat()
  fstat(fileno(file), &status)
  var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
  bytes.removeLast(bytes.count - fread(&bytes, 1, bytes.count, file))
  return bytes
}

/// Makes a file, or replaces what it holds.
func write(_ bytes: [UInt8], toFile path: String) throws {
  let file = try #require(fopen(path, "we"))
  defer { fclose(file) }
  try #require(fwrite(bytes, 1, bytes.count, file) == bytes.count)
}

@Suite struct `A store in a file` {
  /// Runs nbdkit on a store for a moment.
  private func nbdkit(_ parameters: [String], launcher: [String] = []) throws -> FinishedCommand {
    try NBDServer.runToEnd(
      ["-U", "-", try PluginUnderTest.path()] + parameters + ["--run", "true"], launcher: launcher)
  }

  private func expectRefusal(
    _ finished: FinishedCommand, _ words: [String], sourceLocation: SourceLocation = #_sourceLocation
  ) {
    #expect(finished.status == .exited(1), sourceLocation: sourceLocation)
    let lines = finished.standardError.split(separator: "\n")
    #expect(
      lines.count == 1 && lines.first?.hasPrefix("nbdkit: error: ") == true, "\(lines)", sourceLocation: sourceLocation)
    for word in words {
      #expect(finished.standardError.contains(word), "no '\(word)' in \(lines)", sourceLocation: sourceLocation)
    }
  }

  @Test(arguments: [false, true], ["4096", "65536"])
  func `what was written is there after the server ends or is killed`(_ kills: Bool, _ blockSize: String) throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        let store = directory.file("disk.lacuna")
        var disk = ExpectedBytes(byteCount: 3_000_001)
        var map: [AllocationExtent] = []
        func changeSomething(_ client: NBDClient) throws {
          let offset = UInt64.random(in: 0..<2_000_000, using: &generator)
          let bytes = generator.pattern(400_000)
          try client.write(bytes, at: offset)
          disk.write(bytes, at: offset)
          let zeroed = UInt64.random(in: 0..<2_000_000, using: &generator)
          try client.zero(300_000, at: zeroed)
          disk.zero(zeroed..<zeroed + 300_000)
          try client.zero(200_000, at: zeroed + 400_000, flags: .noHole)
          disk.zero(zeroed + 400_000..<zeroed + 600_000)
          try client.trim(131_072, at: 1 << 20)
          disk.zero(1 << 20..<(1 << 20) + 131_072)
        }
        for round in 0..<5 {
          let parameters = round == 0 ? ["size=3000001", "block-size=\(blockSize)"] : []
          try NBDServer.run(PluginUnderTest.command(store: store, parameters)) { server in
            let client = try NBDClient(socketPath: server.socketPath)
            #expect(try client.size() == 3_000_001)
            #expect(try client.blockSizes().preferred == Int64(blockSize))
            try disk.check(client)
            if round > 0 { #expect(try client.allocation(of: 0..<3_000_001) == map) }
            try changeSomething(client)
            try disk.check(client)
            map = try client.allocation(of: 0..<3_000_001)
            if kills { try server.kill() } else { try client.disconnect() }
          }
        }
      }
    }
  }

  @Test func `what was flushed and then rots is an error after a kill, not what was there before`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      let bytes = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 + $0 >> 8) }
      try NBDServer.run(PluginUnderTest.command(store: store, ["size=16M", "journal=1M"])) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        try client.write(bytes, at: 8192)
        try client.flush()
        // The server takes a moment to note the flush where a recovery sees it.
        sleep(1)
        try server.kill()
      }
      // One bit, where the store keeps the block.
      let file = try #require(fopen(store, "r+e"))
      defer { fclose(file) }
      let content = NBDTests.bytes(ofFile: store)
      let place = try #require(
        stride(from: 0, to: content.count, by: 4096).first { content[$0..<$0 + 4096].elementsEqual(bytes) })
      fseek(file, place, SEEK_SET)
      fputc(Int32(bytes[0] ^ 1), file)
      fflush(file)
      try NBDServer.run(PluginUnderTest.command(store: store)) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        let error = #expect(throws: NBDError.self) { _ = try client.read(4096, at: 8192) }
        #expect(error?.code == EIO)
        #expect(try client.read(4096, at: 4096) == [UInt8](repeating: 0, count: 4096))
      }
    }
  }

  @Test func `a quiet store gives back what was overwritten and trimmed`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      func allocated() -> Int {
        var status = stat()
        return stat(store, &status) == 0 ? Int(status.st_blocks) * 512 : 0
      }
      func expectAllocated(atMost byteCount: Int, sourceLocation: SourceLocation = #_sourceLocation) {
        // In the background, some time after the last change.
        for _ in 0..<200 where allocated() > byteCount { usleep(50_000) }
        #expect(allocated() <= byteCount, sourceLocation: sourceLocation)
      }
      try NBDServer.run(PluginUnderTest.command(store: store, ["size=256M", "journal=1M"])) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        let megabyte = [UInt8](repeating: 0xA5, count: 1 << 20)
        for _ in 0..<2 { for index in 0..<96 { try client.write(megabyte, at: UInt64(index) << 20) } }
        expectAllocated(atMost: 112 << 20)
        #expect(allocated() >= 96 << 20)
        // So much at once that its checkpoint does not wait for quiet.
        try client.trim(96 << 20, at: 0)
        expectAllocated(atMost: 16 << 20)
        #expect(try client.read(1 << 20, at: 63 << 20) == [UInt8](repeating: 0, count: 1 << 20))
      }
    }
  }

  @Test func `several volumes live in one store, each of its own size`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      #expect(try nbdkit([store, "size=10M"]).status == .exited(0))
      #expect(try nbdkit([store, "volume=second", "size=20000001"]).status == .exited(0))
      try NBDServer.run(PluginUnderTest.command(store: store)) { server in
        let first = try NBDClient(socketPath: server.socketPath)
        let second = try NBDClient(socketPath: server.socketPath, exportName: "second")
        #expect(try first.canonicalExportName() == "disk")
        #expect(try (first.size(), second.size()) == (10 << 20, 20_000_001))
        try first.write([1, 2, 3], at: 7)
        try second.write([4, 5, 6], at: 7)
        #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath, exportName: "third") }
      }
      try NBDServer.run(PluginUnderTest.command(store: store, ["volume=second"])) { server in
        let second = try NBDClient(socketPath: server.socketPath)
        let first = try NBDClient(socketPath: server.socketPath, exportName: "disk")
        #expect(try second.read(3, at: 7) == [4, 5, 6])
        #expect(try first.read(3, at: 7) == [1, 2, 3])
      }
      expectRefusal(try nbdkit([store, "volume=third"]), ["third", "size="])
      expectRefusal(try nbdkit([store, "volume=third", "size=1M", "create=false"]), ["third"])
      #expect(try nbdkit([store, "size=10M"]).status == .exited(0))
    }
  }

  @Test func `parameters that contradict the store are refused with both values`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      #expect(try nbdkit([store, "size=10M", "journal=1M"]).status == .exited(0))
      expectRefusal(try nbdkit([store, "size=11M"]), ["10485760", "11534336", "disk"])
      expectRefusal(try nbdkit([store, "block-size=8192"]), ["4096", "8192"])
      expectRefusal(try nbdkit([store, "journal=2M"]), ["1048576", "2097152"])
      #expect(try nbdkit([store, "size=10M", "journal=1M", "block-size=4096"]).status == .exited(0))
    }
  }

  @Test func `a store that cannot be made leaves no file behind`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      expectRefusal(try nbdkit([store, "size=10M", "volume=\(String(repeating: "x", count: 3000))"]), ["name"])
      #expect(access(store, F_OK) != 0)
    }
  }

  @Test func `a store in use is refused, with the process that has it`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      try NBDServer.run(PluginUnderTest.command(store: store, ["size=10M"])) { server in
        let pid = try #require(server.pid)
        expectRefusal(try nbdkit([store]), ["in use", "\(pid)", "nbdkit", store])
        try NBDClient(socketPath: server.socketPath).write([1], at: 0)
      }
    }
  }

  @Test(arguments: ["nothing", "text", "noise", "zeroes"])
  func `what is not a store is refused and not touched`(_ kind: String) throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        let path = directory.file("file")
        let contents: [UInt8] =
          switch kind {
          case "nothing": []
          case "text": Array("not a store".utf8)
          case "noise": generator.pattern(30_000_000)
          default: [UInt8](repeating: 0, count: 30_000_000)
          }
        try write(contents, toFile: path)
        var before = stat()
        stat(path, &before)
        expectRefusal(try nbdkit([path, "size=10M"]), [path, kind == "nothing" ? "empty" : "store"])
        expectRefusal(try nbdkit([path]), [path])
        var after = stat()
        stat(path, &after)
        #expect(bytes(ofFile: path) == contents)
        #expect(after.st_mtim.tv_sec == before.st_mtim.tv_sec && after.st_mtim.tv_nsec == before.st_mtim.tv_nsec)
        #expect(after.st_size == before.st_size && after.st_ino == before.st_ino)
      }
    }
  }

  @Test func `a store of a newer format is refused and not touched`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      #expect(try nbdkit([store, "size=10M", "journal=64K"]).status == .exited(0))
      let patched = addingFeature(.incompatible, named: "new-trees", to: bytes(ofFile: store))
      try write(patched, toFile: store)
      expectRefusal(try nbdkit([store]), [store, "features", "'new-trees'"])
      #expect(bytes(ofFile: store) == patched)
    }
  }

  private enum FeatureClass: Int { case readOnlyCompatible = 2, incompatible = 3 }

  /// A store that says that it has a feature of bit 62, and what that is called.
  private func addingFeature(_ kind: FeatureClass, named name: String, to store: [UInt8]) -> [UInt8] {
    var patched = store
    for slot in [0, 65_536] {
      patched[slot + 8 + 8 * kind.rawValue + 7] |= 0x40
      patched[slot + 280] = 1
      let entry = [UInt8(kind.rawValue), 62, UInt8(name.utf8.count), 0, 0, 0, 0, 0] + Array(name.utf8)
      patched.replaceSubrange(slot + 288..<slot + 288 + entry.count, with: entry)
      for index in 12..<16 { patched[slot + index] = 0 }
      let sum = patched[slot..<slot + 4096].withUnsafeBytes { CRC32C.checksum($0) }
      for index in 0..<4 { patched[slot + 12 + index] = UInt8(truncatingIfNeeded: sum >> UInt32(8 * index)) }
    }
    return patched
  }

  @Test func `a store with features that allow reading alone is served with -r, and writers are told why not`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      // Killed, so that there is something to recover.
      try NBDServer.run(PluginUnderTest.command(store: store, ["size=10M", "journal=64K"])) { server in
        try NBDClient(socketPath: server.socketPath).write([1, 2, 3], at: 5_000)
        try server.kill()
      }
      let patched = addingFeature(.readOnlyCompatible, named: "quick-maps", to: bytes(ofFile: store))
      try write(patched, toFile: store)
      for isServedReadOnly in [true, false] {
        try NBDServer.run(PluginUnderTest.command(store: store, options: isServedReadOnly ? ["-r"] : [])) { server in
          if isServedReadOnly {
            let client = try NBDClient(socketPath: server.socketPath)
            #expect(try client.isReadOnly())
            #expect(try client.read(5, at: 4_999) == [0, 1, 2, 3, 0])
            #expect(throws: NBDError.self) { try client.write([1], at: 0) }
          } else {
            #expect(throws: NBDError.self) { try NBDClient(socketPath: server.socketPath) }
          }
          for word in ["'quick-maps'", "only read", "-r"] {
            #expect(server.standardError.contains(word), "no '\(word)' in \(server.standardError)")
          }
        }
        #expect(bytes(ofFile: store) == patched)
      }
    }
  }

  @Test func `a store that may only be read is served for reading and stays as it is`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      // Killed, so that there is something to recover.
      try NBDServer.run(PluginUnderTest.command(store: store, ["size=10M"])) { server in
        try NBDClient(socketPath: server.socketPath).write([1, 2, 3], at: 5_000)
        try server.kill()
      }
      let before = bytes(ofFile: store)
      chmod(store, 0o444)
      var command = try PluginUnderTest.command(store: store)
      // Root may write to any file, unless it gives that right up.
      if geteuid() == 0 { command.launcher = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] }
      try NBDServer.run(command) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        #expect(try client.isReadOnly())
        #expect(try client.read(5, at: 4_999) == [0, 1, 2, 3, 0])
        #expect(throws: NBDError.self) { try client.write([1], at: 0) }
        try client.flush()
        #expect(server.standardError.contains("reading only"), "\(server.standardError)")
      }
      #expect(bytes(ofFile: store) == before)
    }
  }

  @Test func `a disk of 2 TiB is made at once and trimmed at once`() throws {
    try PrivateDirectory.run { directory in
      let store = directory.file("disk.lacuna")
      let clock = ContinuousClock()
      // Loading a debug build and starting nbdkit is most of it.
      let creation = try clock.measure { _ = try nbdkit([store, "size=2T"]) }
      #expect(creation < .seconds(2), "made in \(creation)")
      try NBDServer.run(PluginUnderTest.command(store: store)) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        for offset in stride(from: 0 as UInt64, to: 2 << 40, by: 100 << 30) { try client.write([1], at: offset) }
        let trimming = try clock.measure {
          for offset in stride(from: 0 as UInt64, to: 2 << 40, by: 1 << 31) { try client.trim(1 << 31, at: offset) }
        }
        #expect(trimming < .seconds(2), "trimmed in \(trimming)")
        #expect(try client.allocation(of: 0..<2 << 40).map(\.state) == [[.hole, .zero]])
      }
    }
  }

  @Test func `zeroes that are written become holes, unless that is switched off`() throws {
    for (parameter, state) in [("on", [.hole, .zero] as AllocationState), ("off", .data)] {
      try PrivateDirectory.run { directory in
        let command = try PluginUnderTest.command(
          store: directory.file("disk.lacuna"), ["size=10M", "detect-zeroes=\(parameter)"])
        try NBDServer.run(command) { server in
          let client = try NBDClient(socketPath: server.socketPath)
          try client.write([UInt8](repeating: 1, count: 65_536), at: 0)
          try client.write([UInt8](repeating: 0, count: 32_768), at: 8_192)
          #expect(try client.allocation(of: 8_192..<40_960).map(\.state) == [state])
        }
      }
    }
  }

  @Test func `zeroes that keep their space count against the limit, and have it when all else is full`() throws {
    try PrivateDirectory.run { directory in
      let command = try PluginUnderTest.command(
        store: directory.file("disk.lacuna"), ["size=1G", "limit=64M", "journal=1M"])
      try NBDServer.run(command) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        let failure = #expect(throws: NBDError.self) { try client.zero(100 << 20, at: 0, flags: .noHole) }
        #expect(failure?.code == ENOSPC)
        #expect(try client.allocation(of: 0..<1 << 30).map(\.state) == [[.hole, .zero]])
        try client.zero(16 << 20, at: 0, flags: .noHole)
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        #expect(throws: NBDError.self) {
          for number in 0..<100 { try client.write(piece, at: UInt64(512 + number) << 20) }
        }
        try client.zero(16 << 20, at: 0, flags: .noHole)
        for number in 0..<16 { try client.write(piece, at: UInt64(number) << 20) }
        try client.flush()
        #expect(try client.read(1 << 20, at: 15 << 20) == piece)
      }
    }
  }

  @Test func `a store with a limit says that it is full, and goes on after a trim`() throws {
    try PrivateDirectory.run { directory in
      let command = try PluginUnderTest.command(
        store: directory.file("disk.lacuna"), ["size=1G", "limit=64M", "journal=1M"])
      try NBDServer.run(command) { server in
        let client = try NBDClient(socketPath: server.socketPath)
        let piece = [UInt8](repeating: 7, count: 1 << 20)
        var count: UInt64 = 0
        let failure = #expect(throws: NBDError.self) {
          while count < 100 {
            try client.write(piece, at: count << 20)
            count += 1
          }
        }
        #expect(failure?.code == ENOSPC)
        #expect(count > 32, "\(count) MiB fit")
        try client.flush()
        #expect(try client.read(1 << 20, at: (count - 1) << 20) == piece)
        try client.trim(count << 19, at: 0)
        try client.write(piece, at: 0)
        try client.flush()
        #expect(try client.read(1 << 20, at: 0) == piece)
      }
    }
  }
}
