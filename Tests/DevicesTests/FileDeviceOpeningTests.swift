import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct FileDeviceOpeningTests {
  @Test func `a file that is missing cannot be opened`() throws {
    try withTemporaryDirectory { directory in
      expectFailure(.open, ENOENT) { _ = try FileDevice(opening: directory.appending("missing")) }
    }
  }

  @Test(.timeLimit(.minutes(1)), arguments: [FileDevice.Access.readOnly, .readWrite])
  func `a FIFO, a directory, a socket, a character device and a symbolic link are refused at once`(
    access: FileDevice.Access
  ) throws {
    try withTemporaryDirectory { directory in
      let fifo = directory.appending("fifo")
      try #require(mkfifo(fifo.string, 0o600) == 0)
      expectFailure(.open, ENOTBLK) { _ = try FileDevice(opening: fifo, access: access) }
      expectFailure(.open, EISDIR) { _ = try FileDevice(opening: directory, access: access) }
      expectFailure(.open, ENOTBLK) { _ = try FileDevice(opening: "/dev/full", access: access) }

      let socket = directory.appending("socket")
      try makeSocket(socket)
      expectFailure(.open, ENOTBLK) { _ = try FileDevice(opening: socket, access: access) }

      let file = directory.appending("file")
      _ = try FileDevice(creating: file, byteCount: 4096)
      let link = directory.appending("link")
      try #require(symlink(file.string, link.string) == 0)
      expectFailure(.open, ELOOP) { _ = try FileDevice(opening: link, access: access) }
    }
  }

  @Test func `what was written is there after opening again`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let bytes = pattern(10_000, seed: 1)
      do {
        let device = try FileDevice(creating: path, byteCount: 65_536)
        try device.write(bytes: bytes, at: 1234)
        try device.grow(to: 70_000)
        try device.sync()
      }
      let device = try openWhenFree(path)
      #expect(device.byteCount == 70_000)
      #expect(try device.bytes(at: 1234, count: 10_000) == bytes)
    }
  }

  @Test func `creation makes a file that its owner alone may use, with its space allocated`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let device = try FileDevice(creating: path, byteCount: 1 << 20)
      var status = stat()
      try #require(stat(path.string, &status) == 0)
      #expect(status.st_mode & 0o777 == 0o600)
      #expect(status.st_size == 1 << 20)
      #expect(status.st_blocks * 512 >= 1 << 20)
      #expect(device.byteCount == 1 << 20)
    }
  }

  @Test func `creation refuses a name that is taken and leaves it alone`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      try Data("mine".utf8).write(to: URL(fileURLWithPath: path.string))
      expectFailure(.open, EEXIST) { _ = try FileDevice(creating: path, byteCount: 4096) }
      #expect(try Data(contentsOf: URL(fileURLWithPath: path.string)) == Data("mine".utf8))

      let link = directory.appending("link")
      try #require(symlink("nowhere", link.string) == 0)
      expectFailure(.open, EEXIST) { _ = try FileDevice(creating: link, byteCount: 4096) }
    }
  }

  @Test func `creation that fails leaves no file behind`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      expectFailure(.grow, EFBIG) { _ = try FileDevice(creating: path, byteCount: .max) }
      #expect(access(path.string, F_OK) == -1)
      expectFailure(.open, ENOENT) { _ = try FileDevice(creating: directory.appending("no/device"), byteCount: 1) }
    }
  }

  @Test func `a device open for reading only refuses every change`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let bytes = pattern(8192, seed: 2)
      try FileDevice(creating: path, byteCount: 8192).write(bytes: bytes, at: 0)
      try #require(chmod(path.string, 0o400) == 0)
      let device = try openWhenFree(path, access: .readOnly)
      expectFailure(.write, EROFS) { try device.write(bytes: [1], at: 0) }
      expectFailure(.discard, EROFS) { try device.discard(0..<4096) }
      expectFailure(.grow, EROFS) { try device.grow(to: 10_000) }
      try device.sync()
      #expect(try device.bytes(at: 0, count: 8192) == bytes)
    }
  }
}

/// Makes a Unix socket with a name.
private func makeSocket(_ path: FilePath) throws {
  var address = sockaddr_un()
  address.sun_family = sa_family_t(AF_UNIX)
  withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.string.utf8.prefix($0.count - 1)) }
  let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
  defer { close(descriptor) }
  let status = withUnsafePointer(to: address) {
    $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
      bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
    }
  }
  try #require(status == 0)
}

@Suite struct FileDeviceLockTests {
  @Test func `a device open for writing is locked against every other opening in this process`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      do {
        let device = try FileDevice(creating: path, byteCount: 4096)
        expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path) }
        expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path, access: .readOnly) }
        // A refused opening has not taken the lock away.
        expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path) }
        try device.write(bytes: [1], at: 0)
      }
      _ = try openWhenFree(path)
    }
  }

  @Test func `readers share a device and keep writers away`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      _ = try FileDevice(creating: path, byteCount: 4096)
      do {
        let first = try openWhenFree(path, access: .readOnly)
        let second = try FileDevice(opening: path, access: .readOnly)
        #expect(first.byteCount == second.byteCount)
        expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path) }
      }
      _ = try openWhenFree(path)
    }
  }

  @Test func `a device open here is locked for a child process`() async throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lacuna-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let path = directory + "/device"
    let device = try FileDevice(creating: FilePath(path), byteCount: 4096)
    await #expect(processExitsWith: .success) { [path = path as String] in
      let error = #expect(throws: DeviceError.self) { try FileDevice(opening: FilePath(path)) }
      try #require(error?.operation == .lock && error?.errno == EAGAIN)
    }
    #expect(device.byteCount == 4096)
  }

  @Test func `a lock goes with the process that held it, however that ends`() async throws {
    let directory = FileManager.default.temporaryDirectory.appendingPathComponent("lacuna-\(UUID().uuidString)").path
    try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: directory) }
    let path = directory + "/device"
    await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
      let device = try FileDevice(creating: FilePath(path), byteCount: 4096)
      try device.write(bytes: [42], at: 7)
      kill(getpid(), SIGKILL)
    }
    let device = try openWhenFree(FilePath(path))
    #expect(try device.bytes(at: 7, count: 1) == [42])
  }
}

@Suite struct `Closing a file device` {
  @Test func `frees the file at once, and later calls reach neither it nor what is opened then`() throws {
    try withTemporaryDirectory { directory in
      let (path, other) = (directory.appending("device"), directory.appending("other"))
      let old = try FileDevice(creating: path, byteCount: 65_536)
      let mapping = try #require(old.map(0..<4096))
      try old.write(bytes: [1, 2, 3], at: 0)
      try old.close()

      // Whatever number it gets, it is not that of the device that was closed.
      let new = try FileDevice(opening: path)
      let stranger = try FileDevice(creating: other, byteCount: 65_536)
      expectFailure(.write, EBADF) { try old.write(bytes: [9], at: 0) }
      expectFailure(.read, EBADF) { _ = try old.bytes(at: 0, count: 1) }
      expectFailure(.sync, EBADF) { try old.sync() }
      expectFailure(.discard, EBADF) { try old.discard(0..<4096) }
      expectFailure(.grow, EBADF) { try old.grow(to: 131_072) }
      expectFailure(.findAllocated, EBADF) { _ = try old.allocatedRuns(in: 0..<4096) }
      #expect(old.map(0..<4096) == nil)
      // Harmless: into memory that goes with the mapping.
      #expect(store([9], in: mapping, at: 0))
      #expect(try new.bytes(at: 0, count: 3) == [1, 2, 3])
      #expect(try stranger.bytes(at: 0, count: 3) == [0, 0, 0])
      try old.close()
    }
  }

  @Test func `ends the lock of a process that was forked, too`() throws {
    try withTemporaryDirectory { directory in
      let path = directory.appending("device")
      let old = try FileDevice(creating: path, byteCount: 65_536)
      // As a child has it that has not become its program yet: one more descriptor of the same opening.
      let number = try #require((3..<1024).first { FilePath(linkAt: "/proc/self/fd/\($0)") == path })
      let copy = dup(Int32(number))
      defer { close(copy) }
      try old.close()
      _ = try FileDevice(opening: path)
    }
  }
}

extension FilePath {
  fileprivate init?(linkAt path: String) {
    var target = [CChar](repeating: 0, count: 4096)
    let count = readlink(path, &target, target.count)
    guard count > 0 else { return nil }
    self.init(String(decoding: target[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }
}
