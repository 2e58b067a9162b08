internal import Glibc
internal import Lacuna

/// The socket that clients connect to, with its name, from before nbdkit serves until the supervisor ends.
enum ClientListener {
  case named(SocketListener)
  case loopback(descriptor: Int32)

  /// How many clients may wait to be let in, as while nbdkit is started again.
  private static let backlog: Int32 = 1024

  /// Listens on a Unix socket, to which only this user may connect, or on a port of 127.0.0.1.
  init(on address: ListenAddress) throws {
    switch address {
    case .unixSocket(let path):
      self = .named(
        try SocketListener(
          at: path, for: SocketListener.Purpose(name: "socket", option: "--socket"), backlog: Self.backlog))
    case .loopback(let port): self = .loopback(descriptor: try Self.listen(onPort: port))
    case .passed: preconditionFailure("sockets that were passed in are nbdkit's to find")
    }
  }

  var descriptor: Int32 {
    switch self {
    case .named(let listener): listener.descriptor
    case .loopback(let descriptor): descriptor
    }
  }

  /// Takes the name away.
  func remove() {
    if case .named(let listener) = self { listener.remove() }
  }

  private static func listen(onPort port: UInt16) throws -> Int32 {
    func failure() -> Failure {
      let reason = Process.text(ofError: errno)
      return Failure("cannot listen on the port \(port) of 127.0.0.1: \(reason); choose another one with --port")
    }
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard descriptor >= 0 else { throw failure() }
    var isReused: Int32 = 1
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = INADDR_LOOPBACK.bigEndian
    // Safe: the kernel reads a number and an address of their sizes, which outlive the calls.
    let status = unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        unsafe setsockopt(
          descriptor, SOL_SOCKET, SO_REUSEADDR, &isReused, socklen_t(MemoryLayout<Int32>.size)) == 0
          && bind(descriptor, pointer, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
          && Glibc.listen(descriptor, backlog) == 0
      }
    }
    guard status else { throw failure() }
    return descriptor
  }
}
