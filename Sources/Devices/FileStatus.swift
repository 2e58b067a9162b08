import Glibc
import SystemPackage

/// What a file is and which one, as far as opening a device needs to know.
struct FileStatus {
  /// The kinds of file that opening tells apart.
  enum Kind {
    case regular, blockDevice, directory, symbolicLink, other
  }

  /// What the file is.
  var kind: Kind
  /// The file system the file is on; with `inode` it says which file it is.
  var device: UInt64
  /// The file's number in its file system.
  var inode: UInt64
  /// The length of a regular file in bytes.
  var byteCount: UInt64
  /// The number of a device, where the file is one.
  var ownDevice: UInt64
  /// The user whom it belongs to.
  var owner: UInt32

  /// The status of an open file. See fstat(2).
  init(of descriptor: FileDescriptor) throws(Errno) {
    var status = stat()
    // Safe: the call fills in `status`, which has the type it expects.
    try SystemCalls.check { unsafe fstat(descriptor.rawValue, &status) }
    self.init(status)
  }

  /// The status of what `path` names; of a symbolic link itself. See lstat(2).
  init(at path: FilePath) throws(Errno) {
    var status = stat()
    // Safe: as above, and the string lives as long as the closure.
    try SystemCalls.check { unsafe path.withPlatformString { unsafe lstat($0, &status) } }
    self.init(status)
  }

  private init(_ status: stat) {
    kind =
      switch status.st_mode & S_IFMT {
      case S_IFREG: .regular
      case S_IFBLK: .blockDevice
      case S_IFDIR: .directory
      case S_IFLNK: .symbolicLink
      default: .other
      }
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    byteCount = UInt64(clamping: status.st_size)
    owner = status.st_uid
    ownDevice = UInt64(status.st_rdev)
  }

  /// Whether both are the same file.
  func isSameFile(as other: FileStatus) -> Bool {
    device == other.device && inode == other.inode
  }

  /// Refuses what cannot hold a device's bytes.
  ///
  /// - Throws: `EISDIR` for a directory, `ELOOP` for a symbolic link, and `ENOTBLK` for a FIFO, a socket or a
  ///   character device.
  func requireBytesAtOffsets() throws(Errno) {
    switch kind {
    case .regular, .blockDevice: return
    case .directory: throw .isDirectory
    case .symbolicLink: throw .tooManySymbolicLinkLevels
    case .other: throw Errno(rawValue: ENOTBLK)
    }
  }
}
