import Devices
import Glibc
import LacunaTestSupport
import Testing

@Suite(.enabled(if: LoopDevice.isPossible, "needs losetup and the right to use it"))
struct BlockDeviceFileTests {
  @Test func `a block device has its own length, which is fixed`() throws {
    try LoopDevice.with(byteCount: 3 << 20) { path in
      let device = try FileDevice(opening: path)
      #expect(device.byteCount == 3 << 20)
      try device.grow(to: 1 << 20)
      expectFailure(.grow, EOPNOTSUPP) { try device.grow(to: 4 << 20) }
      #expect(device.byteCount == 3 << 20)
    }
  }

  @Test func `a block device open for writing is in use for others`() throws {
    try LoopDevice.with(byteCount: 1 << 20) { path in
      let device = try FileDevice(opening: path)
      expectFailure(.lock, EBUSY) { _ = try FileDevice(opening: path) }
      expectFailure(.lock, EAGAIN) { _ = try FileDevice(opening: path, access: .readOnly) }
      try device.write(bytes: [1], at: 0)
    }
  }

  @Test func `a block device with a mounted file system is in use`() throws {
    try LoopDevice.with(byteCount: 4 << 20) { path in
      _ = try output("mkfs.ext4", "-q", path.string)
      try withTemporaryDirectory { directory in
        _ = try output("mount", path.string, directory.string)
        defer { _ = try? output("umount", directory.string) }
        expectFailure(.lock, EBUSY) { _ = try FileDevice(opening: path) }
      }
      _ = try openWhenFree(path)
    }
  }

  @Test func `what was written to a block device is there after opening again`() throws {
    try LoopDevice.with(byteCount: 1 << 20) { path in
      do {
        let device = try FileDevice(opening: path)
        try device.write(bytes: pattern(10_000, seed: 1), at: 12_345)
        try device.sync()
      }
      let device = try openWhenFree(path, access: .readOnly)
      #expect(try device.bytes(at: 12_345, count: 10_000) == pattern(10_000, seed: 1))
      expectFailure(.write, EROFS) { try device.write(bytes: [1], at: 0) }
    }
  }
}
