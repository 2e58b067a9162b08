import Devices
import Glibc
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct MappedRangeTests {
  @Test func `what is stored in a mapping is what reads return, now and after opening again`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      do {
        let device = try FileDevice(creating: path, byteCount: 1 << 20)
        try device.write(bytes: pattern(1 << 20, seed: 1), at: 0)
        let mapping = try #require(device.map(65_536..<131_072))
        #expect(mapping.byteCount == 65_536)
        #expect(store(pattern(10, seed: 2), in: mapping, at: 4090))
        try device.sync()
        #expect(store(pattern(10, seed: 3), in: mapping, at: 65_526))
        #expect(try device.bytes(at: 65_536 + 4090, count: 10) == pattern(10, seed: 2))
        #expect(try device.bytes(at: 131_062, count: 10) == pattern(10, seed: 3))
        // And the other way round.
        try device.write(bytes: [7], at: 65_536)
        #expect(store([8], in: mapping, at: 1))
        #expect(try device.bytes(at: 65_536, count: 2) == [7, 8])
      }
      let device = try openWhenFree(path)
      #expect(try device.bytes(at: 65_536 + 4090, count: 10) == pattern(10, seed: 2))
      #expect(try device.bytes(at: 131_062, count: 10) == pattern(10, seed: 3))
      #expect(try device.bytes(at: 131_072, count: 4096) == Array(pattern(1 << 20, seed: 1)[131_072..<135_168]))
    }
  }

  @Test func `what cannot be mapped is not`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      do {
        let device = try FileDevice(creating: path, byteCount: 65_536)
        #expect(device.map(0..<0) == nil)
        #expect(device.map(1..<4097) == nil)
        #expect(device.map(4096..<69_632) == nil)
        #expect(device.map(0..<UInt64.max) == nil)
        #expect(device.map(61_440..<65_536) != nil)
      }
      #expect(try openWhenFree(path, access: .readOnly).map(0..<4096) == nil)
    }
  }

  @Test func `the lock stays when a mapping goes`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 65_536)
      _ = device.map(0..<4096)
      expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path) }
    }
  }

  @Test func `any number of bytes is stored, and nothing beside them`() throws {
    try withTemporaryDirectory { directory in
      let device = try FileDevice(creating: directory.appending("device"), byteCount: 1 << 20)
      var expected = pattern(1 << 20, seed: 4)
      try device.write(bytes: expected, at: 0)
      let mapping = try #require(device.map(0..<1 << 20))
      for (step, count) in [0, 1, 80, 4096, 32_767, 32_768, 32_769, 100_000, 1 << 20].enumerated() {
        let offset = min(77 * step, (1 << 20) - count)
        let bytes = pattern(count, seed: 10 + step)
        #expect(store(bytes, in: mapping, at: offset))
        expected.replaceSubrange(offset..<offset + count, with: bytes)
        #expect(try device.bytes(at: 0, count: 1 << 20) == expected, "\(count) bytes")
      }
    }
  }

  @Test func `threads that store at once do not get each other's bytes`() throws {
    try withTemporaryDirectory { directory in
      let device = try FileDevice(creating: directory.appending("device"), byteCount: 65_536)
      let mapping = try #require(device.map(0..<65_536))
      try inThreads(4) { thread in
        let bytes = pattern(100, seed: thread)
        for step in 0..<5000 {
          let offset = thread * 16_384 + step
          let isStored = store(bytes, in: mapping, at: offset)
          try #require(try isStored && device.bytes(at: UInt64(offset), count: 100) == bytes)
        }
      }
    }
  }

  // In the tests below, a plain store to memory would end the process with a signal.

  @Test func `where someone cut the file short, a store is refused, and writing the same bytes puts it right`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 65_536)
      let mapping = try #require(device.map(0..<65_536))
      try #require(truncate(path.string, 8192) == 0)
      let bytes = pattern(8192, seed: 5)
      #expect(store(bytes, in: mapping, at: 0))
      #expect(!store([1], in: mapping, at: 8193))
      #expect(!store(bytes, in: mapping, at: 32_768))
      // Its first half is stored before the second is refused.
      #expect(!store(bytes, in: mapping, at: 4096))
      try device.write(bytes: bytes, at: 4096)
      #expect(try device.bytes(at: 0, count: 12_288) == bytes[..<4096] + bytes)
      #expect(store(bytes, in: mapping, at: 4096))
    }
  }

  @Test(.enabled(if: SmallFileSystem.isPossible, "needs the right to mount a file system"))
  func `a store to a hole of a full file system in memory is refused`() throws {
    try SmallFileSystem.with(byteCount: 1 << 20) { directory in
      let device = try FileDevice(creating: directory.appending("device"), byteCount: 65_536)
      try device.write(bytes: pattern(65_536, seed: 6), at: 0)
      let mapping = try #require(device.map(0..<65_536))
      try device.discard(0..<4096)
      try fill(directory)
      #expect(!store([1], in: mapping, at: 1))
      #expect(store([1], in: mapping, at: 4097))
    }
  }

  @Test(.enabled(if: SmallFileSystem.isXFSPossible, "needs XFS and the right to mount it"))
  func `a store to a page that a copy of the file shares is refused while there is no room for another`() throws {
    try SmallFileSystem.withXFS { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 1 << 20)
      let old = pattern(1 << 20, seed: 7)
      try device.write(bytes: old, at: 0)
      let mapping = try #require(device.map(0..<1 << 20))
      // A page that was stored to a moment ago, and others.
      #expect(store([1], in: mapping, at: 0))
      let copy = directory.appending("copy")
      _ = try output("cp", "--reflink=always", path.string, copy.string)
      let filler = try fill(directory)
      for offset in [1, 4095, 8192, 524_288] {
        #expect(!store([2, 3], in: mapping, at: offset))
        expectFailure(.write, ENOSPC) { try device.write(bytes: [2, 3], at: UInt64(offset)) }
      }
      #expect(try device.bytes(at: 0, count: 1 << 20) == [1] + old[1...])
      try #require(truncate(filler.string, 0) == 0)
      for offset in [1, 4095, 8192, 524_288] { #expect(store([2, 3], in: mapping, at: offset)) }
      try device.sync()
      #expect(try device.bytes(at: 4095, count: 2) == [2, 3])
      #expect(try openWhenFree(copy).bytes(at: 0, count: 1 << 20) == [1] + old[1...])
    }
  }

  /// Takes all room of the file system that `directory` is on, with a file that it returns.
  @discardableResult
  private func fill(_ directory: FilePath) throws -> FilePath {
    let path = directory.appending("filler")
    let filler = try FileDevice(creating: path, byteCount: 0)
    var step: UInt64 = 64 << 20
    while step >= 4096 {
      do {
        try filler.grow(to: filler.byteCount + step)
      } catch {
        guard error.errno == ENOSPC else { throw error }
        step /= 2
      }
    }
    return path
  }
}

func store(_ bytes: [UInt8], in mapping: MappedRange, at offset: Int) -> Bool {
  bytes.withUnsafeBytes { mapping.store($0, at: offset) }
}
