import Glibc

/// A bare socket to an NBD server, for saying what no client library would say.
///
/// The numbers are those of the NBD protocol; all are big-endian on the wire.
package final class RawConnection {
  private let socket: Int32

  /// Connects; no call on this socket then waits longer than ten seconds.
  package init(socketPath: String) throws {
    socket = Glibc.socket(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard socket >= 0 else { throw SystemError(call: "socket", code: errno) }
    var timeout = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: socketPath.utf8.prefix($0.count - 1)) }
    let status = withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(socket, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    guard status == 0 else {
      close(socket)
      throw SystemError(call: "connect", code: errno)
    }
  }

  deinit { close(socket) }

  /// Sends all of `bytes`; that the server hung up meanwhile is no failure.
  package func send(_ bytes: [UInt8]) throws {
    var sent = 0
    while sent < bytes.count {
      let count = bytes[sent...].withUnsafeBytes {
        Glibc.send(socket, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
      }
      if count < 0 {
        if errno == EPIPE || errno == ECONNRESET { return }
        throw SystemError(call: "send", code: errno)
      }
      sent += count
    }
  }

  /// Receives up to `byteCount` bytes; fewer where the server hung up.
  package func receive(_ byteCount: Int) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 65_536)
    while bytes.count < byteCount {
      let count = recv(socket, &piece, min(piece.count, byteCount - bytes.count), 0)
      if count < 0 {
        if errno == ECONNRESET { break }
        throw SystemError(call: "recv", code: errno)
      }
      if count == 0 { break }
      bytes += piece[..<count]
    }
    return bytes
  }

  /// Says that nothing more will be sent, and waits until the server has hung up too.
  package func finishSendingAndWaitForHangUp() throws {
    shutdown(socket, Int32(SHUT_WR))
    _ = try receive(1 << 26)
  }

  /// Goes through the handshake up to the default export, without structured replies.
  package func handshake() throws {
    _ = try receive(18)  // "NBDMAGIC", "IHAVEOPT", handshake flags
    try send(bigEndian(UInt32(3)) + RawConnection.option(1, []))  // fixed newstyle and no zeroes; export name ""
    let answer = try receive(10)  // size, transmission flags
    guard answer.count == 10 else { throw SystemError(call: "handshake", code: EPROTO) }
  }

  /// The bytes of one option.
  package static func option(_ number: UInt32, _ data: [UInt8], byteCount: UInt32? = nil) -> [UInt8] {
    Array("IHAVEOPT".utf8) + bigEndian(number) + bigEndian(byteCount ?? UInt32(data.count)) + data
  }

  /// The 28 bytes of one request's header.
  package static func request(
    type: UInt16, flags: UInt16 = 0, cookie: UInt64 = 1, offset: UInt64, byteCount: UInt32
  ) -> [UInt8] {
    bigEndian(UInt32(0x2560_9513)) + bigEndian(flags) + bigEndian(type) + bigEndian(cookie) + bigEndian(offset)
      + bigEndian(byteCount)
  }

  /// Waits for a simple reply and returns its error number; nil where the server hung up instead.
  package func replyError() throws -> UInt32? {
    let reply = try receive(16)  // magic, error, cookie
    guard reply.count == 16 else { return nil }
    return reply[4..<8].reduce(0) { $0 << 8 | UInt32($1) }
  }
}

/// The bytes of a number, the most significant first.
package func bigEndian(_ number: some FixedWidthInteger) -> [UInt8] {
  withUnsafeBytes(of: number.bigEndian) { Array($0) }
}
