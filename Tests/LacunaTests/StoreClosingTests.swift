import Bytes
import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

@testable import Lacuna

@Suite struct `A closed store` {
  private func expectClosed(
    sourceLocation: SourceLocation = #_sourceLocation, _ body: () throws -> Void
  ) {
    let error = #expect(throws: LacunaError.self, sourceLocation: sourceLocation) { try body() }
    #expect(error?.code == .closed, sourceLocation: sourceLocation)
    #expect(error?.description.contains("the store was closed") == true, sourceLocation: sourceLocation)
  }

  /// What this process has open or mapped of the file at `path`.
  private func uses(of path: String) throws -> [String] {
    var uses: [String] = []
    for number in 0..<1024 {
      var target = [CChar](repeating: 0, count: 4096)
      let count = readlink("/proc/self/fd/\(number)", &target, target.count)
      if count > 0, String(decoding: target[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self) == path {
        uses.append("descriptor \(number)")
      }
    }
    let maps = try #require(fopen("/proc/self/maps", "re"))
    defer { fclose(maps) }
    var line = [CChar](repeating: 0, count: 8192)
    while fgets(&line, Int32(line.count), maps) != nil {
      let text = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if text.hasSuffix(path) { uses.append(text) }
    }
    return uses
  }

  @Test func `is free for others while old references are held, and refuses all calls by them`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      let old = try Store(options(path))
      try old.startBackgroundWork()
      let volume = try old.openVolume(named: "")
      let throwaway = try old.openVolume(named: "disk+x")
      try write(1, to: volume, at: 0)
      try write(2, to: throwaway, at: 0)
      #expect(try uses(of: path) != [])
      try old.close()
      #expect(try uses(of: path) == [])

      let new = try Store(options(path))
      let newVolume = try new.openVolume(named: "")
      #expect(try read(newVolume, at: 0) == 1)
      try write(3, to: newVolume, at: 0)

      for volume in [volume, throwaway] {
        expectClosed { _ = try read(volume, at: 0) }
        expectClosed { try write(4, to: volume, at: 0) }
        expectClosed { try volume.zero(0..<4096, mayTrim: true, onlyIfFast: false, durably: true) }
        expectClosed { try volume.discard(0..<4096, durably: false) }
        expectClosed { try volume.flush() }
        expectClosed { try volume.prefetch(0..<4096) }
        expectClosed { try volume.forEachExtent(in: 0..<4096) { _ throws(LacunaError) in true } }
        #expect(volume.byteCount == 1 << 20)
        #expect(volume.preferredByteCount == 4096)
      }
      expectClosed { _ = try old.volumes() }
      expectClosed { _ = try old.defaultVolumeName }
      expectClosed { _ = try old.openVolume(named: "disk") }
      expectClosed { try old.giveBackSpace() }
      expectClosed { try old.startBackgroundWork() }
      expectClosed { _ = try old.call(GetStoreInfo()) }
      expectClosed { _ = try old.call(CreateSnapshots(names: ["disk@a"])) }
      // What has nothing left to do does nothing.
      #expect(old.owner == nil)
      try volume.close()
      try throwaway.close()
      try old.close()

      #expect(try read(newVolume, at: 0) == 3)
      #expect(try new.call(CheckStore(data: true)).findings == [])
      try new.close()
    }
  }

  @Test func `in memory refuses all calls`() throws {
    var options = StoreOptions()
    options.memoryByteCount = 1 << 20
    let store = try Store(options)
    let volume = try store.openVolume(named: "")
    try write(1, to: volume, at: 0)
    try store.close()
    expectClosed { _ = try read(volume, at: 0) }
    expectClosed { _ = try store.volumes() }
    try volume.close()
    try store.close()
  }
}

@Suite struct StoreClosingConcurrencyTests {
  @Test func `closing waits for the calls that are running, and lets no other begin`() throws {
    try PrivateDirectory.run { directory in
      let path = directory.file("s.lacuna")
      for round in 1...20 {
        let store = try Store(options(path))
        try store.startBackgroundWork()
        // What each thread has written last, of its own block.
        let written = Locked([UInt8](repeating: 0, count: 3))
        let areRunning = Rendezvous(of: 4)
        let writers = (0..<3).map { thread in
          { @Sendable () throws in
            let volume = try store.openVolume(named: "disk")
            var byte: UInt8 = 1
            areRunning.meet()
            while true {
              do throws(LacunaError) {
                try write(byte, to: volume, at: UInt64(thread) * 4096)
                if byte % 16 == 0 { try volume.flush() }
                if byte % 64 == 0 { _ = try store.call(GetStatistics()) }
              } catch {
                try #require(error.code == .closed, "\(error)")
                return
              }
              written.withLock { $0[thread] = byte }
              byte = byte % 250 + 1
            }
          }
        }
        let closer = { @Sendable () throws in
          areRunning.meet()
          usleep(UInt32(round) * 300)
          try store.close()
          // A second one waits for nothing, and finds all done.
          try store.close()
          let new = try Store(options(path))
          let volume = try new.openVolume(named: "disk")
          // What a call reported is there, and at most the one that was the last to be let in comes on top.
          for thread in 0..<3 {
            let found = try read(volume, at: UInt64(thread) * 4096)
            let last = written.withLock { $0[thread] }
            #expect(found == last || found == last % 250 + 1 || last == 0, "thread \(thread) of round \(round)")
          }
          try new.close()
        }
        try inThreads(writers + [closer])
      }
    }
  }
}

private func options(_ path: String) -> StoreOptions {
  var options = StoreOptions()
  options.path = path
  options.byteCount = 1 << 20
  options.journalByteCount = 65_536
  options.waitsForLock = false
  return options
}

private func write(_ byte: UInt8, to volume: Volume, at offset: UInt64) throws(LacunaError) {
  let bytes = [UInt8](repeating: byte, count: 4096)
  let result = bytes.withUnsafeBytes { buffer in
    Result { () throws(LacunaError) in try volume.write(buffer, at: offset, durably: false) }
  }
  try result.get()
}

private func read(_ volume: Volume, at offset: UInt64) throws(LacunaError) -> UInt8 {
  var bytes = [UInt8](repeating: 0, count: 4096)
  let result = bytes.withUnsafeMutableBytes { buffer in
    Result { () throws(LacunaError) in try volume.read(into: buffer, at: offset) }
  }
  try result.get()
  return bytes[0]
}
