import Devices
import Glibc
import Testing

@Suite struct DeviceErrorTests {
  @Test(arguments: [
    (
      DeviceError(operation: .read, errno: EIO, offset: 4096, byteCount: 512, path: "/srv/store"),
      "cannot read 512 bytes at offset 4096 (/srv/store): Input/output error"
    ),
    (
      DeviceError(operation: .write, errno: EINVAL, offset: .max, byteCount: 1),
      "cannot write 1 bytes at offset 18446744073709551615: the range is not inside the device"
    ),
    (
      DeviceError(operation: .discard, errno: EOPNOTSUPP, offset: 0, byteCount: 4096, path: "d"),
      "cannot discard 4096 bytes at offset 0 (d): Operation not supported"
    ),
    (DeviceError(operation: .sync, errno: ENOSPC, path: "d"), "cannot sync (d): No space left on device"),
    (DeviceError(operation: .grow, errno: EFBIG, byteCount: 7), "cannot grow to 7 bytes: File too large"),
    (DeviceError(operation: .open, errno: ENOENT, path: "/x"), "cannot open /x: No such file or directory"),
    (DeviceError(operation: .open, errno: ENOMEM), "cannot open the device: Cannot allocate memory"),
    (
      DeviceError(operation: .open, errno: ENOTBLK, path: "/dev/null"),
      "cannot open /dev/null: it is neither a regular file nor a block device"
    ),
    (
      DeviceError(operation: .lock, errno: EAGAIN, path: "/x"),
      "cannot lock /x: it is in use, by another process or by another opening in this one"
    ),
  ])
  func `an error says in one line what failed, where and why`(error: DeviceError, text: String) {
    #expect(error.description == text)
    #expect(!error.description.contains("\n"))
  }
}
