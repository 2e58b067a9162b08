import Devices
import Glibc
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct FileDeviceReadAheadTests {
  @Test func `what is read ahead comes into memory, all of it`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let byteCount = 4 << 20
      let device = try FileDevice(creating: path, byteCount: UInt64(byteCount))
      try device.write(bytes: pattern(byteCount, seed: 3), at: 0)
      try device.sync()
      let file = open(path.string, O_RDONLY)
      defer { close(file) }
      let memory = try #require(mmap(nil, byteCount, PROT_READ, MAP_SHARED, file, 0))
      defer { munmap(memory, byteCount) }
      func cachedCount() -> Int {
        var pages = [UInt8](repeating: 0, count: byteCount / 4096)
        mincore(memory, byteCount, &pages)
        return pages.count { $0 & 1 == 1 }
      }
      device.forgetCached(0..<UInt64(byteCount))
      // A file system in memory has nowhere else to keep them.
      guard cachedCount() == 0 else { return }
      // Also past the end, which is nothing.
      device.readAhead(0..<1 << 63)
      var polls = 0
      while cachedCount() < byteCount / 4096, polls < 6000 {
        usleep(10_000)
        polls += 1
      }
      #expect(cachedCount() == byteCount / 4096)
      #expect(try device.bytes(at: 0, count: byteCount) == pattern(byteCount, seed: 3))
    }
  }
}
