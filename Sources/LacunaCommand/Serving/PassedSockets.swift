internal import Glibc

/// Sockets that a service manager listens on and has passed to this process (sd_listen_fds(3)), for nbdkit to serve.
enum PassedSockets {
  private static let firstDescriptor = 3

  /// How many there are; 0 where the variables are missing, or were meant for another process.
  ///
  /// nbdkit looks at the same variables, and where it takes them for wrong, it listens on all addresses. So what this
  /// function lets pass is what nbdkit serves.
  static func count() throws -> Int {
    guard Process.variable("LISTEN_PID") == "\(getpid())", let text = Process.variable("LISTEN_FDS") else { return 0 }
    guard let count = Int32(text), count > 0, text == "\(count)" else {
      throw Failure("LISTEN_FDS says '\(text)', which is not a number of sockets; correct what starts lacuna")
    }
    for descriptor in firstDescriptor..<firstDescriptor + Int(count) where !isListening(Int32(clamping: descriptor)) {
      throw Failure(
        "LISTEN_FDS says \(count), and descriptor \(descriptor) is no socket that listens; correct what starts lacuna "
          + "(a socket unit must have Accept=no)")
    }
    return Int(count)
  }

  /// Whether one of them is no Unix socket, whose name says who may connect.
  static func includeNetwork(count: Int) -> Bool {
    (firstDescriptor..<firstDescriptor + count).contains { descriptor in
      var address = sockaddr_storage()
      var byteCount = socklen_t(MemoryLayout<sockaddr_storage>.size)
      // Safe: the kernel fills in a structure that any address fits in.
      let status = unsafe withUnsafeMutablePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
          unsafe getsockname(Int32(descriptor), pointer, &byteCount)
        }
      }
      return status != 0 || Int32(address.ss_family) != AF_UNIX
    }
  }

  private static func isListening(_ descriptor: Int32) -> Bool {
    var answer: Int32 = 0
    var byteCount = socklen_t(MemoryLayout<Int32>.size)
    // Safe: the kernel fills in a number of this size, which outlives the call.
    return unsafe getsockopt(descriptor, SOL_SOCKET, SO_ACCEPTCONN, &answer, &byteCount) == 0 && answer != 0
  }
}
