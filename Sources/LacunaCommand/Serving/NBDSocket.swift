internal import Glibc

/// The Unix socket that a server of volumes listens on.
enum NBDSocket {
  /// `path` as an absolute one, which fits what the kernel takes.
  static func path(_ path: String) throws -> String {
    let absolute = path.hasPrefix("/") ? path : "\(Process.currentFolder())/\(path)"
    guard absolute.utf8.count < 108 else {
      throw Failure(
        "the socket \(absolute) has \(absolute.utf8.count) bytes, and the path of a socket has 107 at most; "
          + "choose a shorter one with --socket")
    }
    return absolute
  }

  /// Removes the socket of a server that was killed, so that another one can take its place; a live one stays.
  static func removeLeftOver(_ path: String) throws {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    guard unsafe lstat(path, &status) == 0 else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else {
      throw Failure("\(path) is there already, and is no socket; choose another one with --socket")
    }
    switch answer(of: path) {
    case 0: throw Failure("another server listens on \(path); end it, or choose another socket with --socket")
    case ECONNREFUSED: unsafe unlink(path)
    case let error: throw Failure("cannot tell who listens on \(path): \(Process.text(ofError: error)); remove it")
    }
  }

  /// 0 where somebody listens, else the errno of connecting.
  private static func answer(of path: String) -> Int32 {
    let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { return errno }
    defer { Glibc.close(descriptor) }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { bytes in
      // Safe: the path is copied as far as there is room for it and a NUL.
      unsafe bytes.copyBytes(from: path.utf8.prefix(bytes.count - 1))
    }
    let status = unsafe withUnsafePointer(to: &address) { pointer in
      // Safe: a socket address of one kind is passed as the general one, with its size.
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    return status == 0 ? 0 : errno
  }
}
