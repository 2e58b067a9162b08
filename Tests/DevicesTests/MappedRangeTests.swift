import Devices
import Glibc
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
        #expect(mapping.prepare(4090..<4100))
        store(pattern(10, seed: 2), in: mapping, at: 4090)
        try device.sync()
        store(pattern(10, seed: 3), in: mapping, at: 65_526)
        #expect(try device.bytes(at: 65_536 + 4090, count: 10) == pattern(10, seed: 2))
        #expect(try device.bytes(at: 131_062, count: 10) == pattern(10, seed: 3))
        // And the other way round.
        try device.write(bytes: [7], at: 65_536)
        store([8], in: mapping, at: 1)
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
      #expect(try MemoryDevice(byteCount: 65_536).map(0..<4096) == nil)
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

  @Test func `a file that someone cut short is refused before it is stored to`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 65_536)
      let mapping = try #require(device.map(0..<65_536))
      try #require(truncate(path.string, 8192) == 0)
      #expect(mapping.prepare(0..<8192))
      #expect(!mapping.prepare(8192..<8193))
      #expect(!mapping.prepare(0..<65_536))
    }
  }

  private func store(_ bytes: [UInt8], in mapping: MappedRange, at offset: Int) {
    bytes.withUnsafeBytes { mapping.store($0, at: offset) }
  }
}
