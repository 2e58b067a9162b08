/// Where a server listens.
enum ListenAddress {
  case unixSocket(String)
  case loopback(port: UInt16)
  /// On sockets that were passed in, which nbdkit finds by itself.
  case passed(count: Int)

  /// The Unix socket at `path`, from the root on, which fits what the kernel takes.
  static func unixSocket(at path: String) throws -> ListenAddress {
    let absolute = Process.absolute(path)
    guard absolute.utf8.count < 108 else {
      throw Failure(
        "the socket \(absolute) has \(absolute.utf8.count) bytes, and the path of a socket has 107 at most; "
          + "choose a shorter one with --socket")
    }
    return .unixSocket(absolute)
  }

  /// The options that tell an nbdkit that listens by itself.
  var options: [String] {
    switch self {
    case .unixSocket(let path): ["--unix", path]
    case .loopback(let port): ["--ipaddr", "127.0.0.1", "--port", "\(port)"]
    case .passed: []
    }
  }

  /// What clients are given; of sockets that were passed in, only whoever made them knows.
  func place(isEncrypted: Bool) -> String {
    let scheme = isEncrypted ? "nbds" : "nbd"
    return switch self {
    case .unixSocket(let path): "\(scheme)+unix:///?socket=\(path.percentEncoded)"
    case .loopback(let port): "\(scheme)://127.0.0.1:\(port)"
    case .passed(let count): count == 1 ? "the socket that was passed in" : "the \(count) sockets that were passed in"
    }
  }
}

extension String {
  /// As it stands in a URI's query.
  fileprivate var percentEncoded: String {
    utf8.map { byte in
      if byte.isASCIILetterOrDigit || "/._~-".utf8.contains(byte) { return String(Unicode.Scalar(byte)) }
      let digits = String(byte, radix: 16, uppercase: true)
      return "%" + (digits.utf8.count < 2 ? "0" : "") + digits
    }.joined()
  }
}
