import Devices
import Glibc
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct FileDeviceFailureTests {
  @Test func `after a failed sync every change fails the same way and reads go on`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 8192)
      try device.write(bytes: [1, 2, 3], at: 0)
      device.noteFailedSync(.noSpace)
      device.noteFailedSync(.ioError)  // Too late: the first one stays.
      for _ in 0..<2 {
        expectFailure(.sync, ENOSPC) { try device.sync() }
        expectFailure(.write, ENOSPC) { try device.write(bytes: [9], at: 0) }
        expectFailure(.discard, ENOSPC) { try device.discard(0..<4096) }
        expectFailure(.grow, ENOSPC) { try device.grow(to: 16_384) }
      }
      #expect(try device.bytes(at: 0, count: 3) == [1, 2, 3])
      #expect(device.byteCount == 8192)
    }
  }

  @Test func `after a failed sync reads return what the disk holds, not what memory still has`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let byteCount = 1 << 20
      let device = try FileDevice(creating: path, byteCount: UInt64(byteCount))
      try device.write(bytes: pattern(byteCount, seed: 3), at: 0)
      try device.sync()
      let file = open(path.string, O_RDONLY)
      defer { close(file) }
      let memory = try #require(mmap(nil, byteCount, PROT_READ, MAP_SHARED, file, 0))
      defer { munmap(memory, byteCount) }
      // A mapping that was never touched keeps no page.
      func cachedCount() -> Int {
        var pages = [UInt8](repeating: 0, count: byteCount / 4096)
        mincore(memory, byteCount, &pages)
        return pages.count { $0 & 1 == 1 }
      }
      _ = posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED)
      // A file system in memory has nowhere else to keep them.
      guard cachedCount() == 0 else { return }
      #expect(try device.bytes(at: 0, count: byteCount) == pattern(byteCount, seed: 3))
      try #require(cachedCount() == byteCount / 4096)
      device.noteFailedSync(.ioError)
      #expect(cachedCount() == 0)
      #expect(try device.bytes(at: 0, count: byteCount) == pattern(byteCount, seed: 3))
    }
  }

  @Test func `a failed sync is forgotten when the device is opened again`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      try FileDevice(creating: path, byteCount: 4096).noteFailedSync(.ioError)
      let device = try openWhenFree(path)
      try device.write(bytes: [1], at: 0)
      try device.sync()
    }
  }

  @Test func `a file that someone cut short gives an error and no endless read`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 8192)
      try #require(truncate(path.string, 5000) == 0)
      expectFailure(.read, EIO) { _ = try device.bytes(at: 0, count: 8192) }
      expectFailure(.read, EIO) { _ = try device.bytes(at: 6000, count: 1) }
      #expect(try device.bytes(at: 0, count: 5000) == zeroes(5000))
    }
  }

  @Test(arguments: [1 << 62, UInt64(Int64.max), UInt64.max])
  func `growing further than any file can be says so and changes nothing`(byteCount: UInt64) throws {
    try withTemporaryDirectory { directory in
      let device = try FileDevice(creating: directory.appending("device"), byteCount: 4096)
      expectFailure(.grow, EFBIG) { try device.grow(to: byteCount) }
      #expect(device.byteCount == 4096)
      try device.write(bytes: [1], at: 4095)
    }
  }

  @Test(.enabled(if: SmallFileSystem.isPossible, "needs the right to mount a file system"))
  func `growing on a full file system finds no space and takes none`() throws {
    try SmallFileSystem.with(byteCount: 1 << 20) { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 65_536)
      expectFailure(.grow, ENOSPC) { try device.grow(to: 1 << 21) }
      #expect(device.byteCount == 65_536)
      var status = stat()
      try #require(stat(path.string, &status) == 0)
      #expect(status.st_size == 65_536)
      try device.grow(to: 1 << 19)
      try device.write(bytes: [1], at: (1 << 19) - 1)
    }
  }

  @Test(.enabled(if: LoopDevice.isPossible, "needs losetup and the right to use it"))
  func `growing that got a part of its space before it ran out gives that back`() throws {
    try SmallFileSystem.withExt4(byteCount: 16 << 20) { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 65_536)
      expectFailure(.grow, ENOSPC) { try device.grow(to: 1 << 30) }
      var status = stat()
      try #require(stat(path.string, &status) == 0)
      #expect(status.st_size == 65_536)
      #expect(status.st_blocks * 512 < 1 << 20)
    }
  }

  @Test(.enabled(if: SmallFileSystem.isPossible, "needs the right to mount a file system"))
  func `a write to a hole on a full file system finds no space`() throws {
    try SmallFileSystem.with(byteCount: 1 << 20) { directory in
      let device = try FileDevice(creating: directory.appending("device"), byteCount: 1 << 19)
      try device.discard(0..<1 << 19)
      let rest = try FileDevice(creating: directory.appending("rest"), byteCount: 900_000)
      expectFailure(.write, ENOSPC) { try device.write(bytes: pattern(1 << 19, seed: 1), at: 0) }
      expectFailure(.write, ENOSPC) { try device.write(bytes: pattern(1 << 19, seed: 1), at: 0) }
      #expect(rest.byteCount == 900_000)
      #expect(try device.bytes(at: (1 << 19) - 1, count: 1) == [0])
    }
  }
}

@Suite struct FileDeviceSpaceTests {
  @Test func `a discard gives a file's space back and keeps its length`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 1 << 20)
      try device.write(bytes: pattern(1 << 20, seed: 1), at: 0)
      try device.sync()
      try device.discard(0..<1 << 20)
      var status = stat()
      try #require(stat(path.string, &status) == 0)
      #expect(status.st_blocks == 0)
      #expect(status.st_size == 1 << 20)
    }
  }
}

/// A file system of a size that a test can fill: in memory, or on a loop device.
enum SmallFileSystem {
  /// Whether this user may mount one.
  static let isPossible: Bool = {
    do {
      try with(byteCount: 1 << 20) { _ in }
      return true
    } catch {
      return false
    }
  }()

  static func with(byteCount: Int, _ body: (FilePath) throws -> Void) throws {
    try withTemporaryDirectory { directory in
      _ = try output("mount", "-t", "tmpfs", "-o", "size=\(byteCount)", "lacuna-test", directory.string)
      defer { _ = try? output("umount", "--lazy", directory.string) }
      try body(directory)
    }
  }

  static func withExt4(byteCount: UInt64, _ body: (FilePath) throws -> Void) throws {
    try withLoop(byteCount: byteCount, "mkfs.ext4", "-q", body: body)
  }

  /// Whether this user may mount XFS, and this machine can.
  static let isXFSPossible: Bool = {
    do {
      try withXFS { _ in }
      return true
    } catch {
      return false
    }
  }()

  /// One of about the smallest size that there is, whose files can share blocks.
  static func withXFS(_ body: (FilePath) throws -> Void) throws {
    try withLoop(byteCount: 320 << 20, "mkfs.xfs", "-q", "-m", "reflink=1", body: body)
  }

  private static func withLoop(byteCount: UInt64, _ make: String..., body: (FilePath) throws -> Void) throws {
    try LoopDevice.with(byteCount: byteCount) { device in
      _ = try output(make + [device.string])
      try withTemporaryDirectory { directory in
        _ = try output("mount", device.string, directory.string)
        defer { _ = try? output("umount", directory.string) }
        try body(directory)
      }
    }
  }
}
