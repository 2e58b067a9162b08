internal import Bytes
internal import CLinux
internal import Glibc
internal import SystemPackage

/// The system calls of the control socket, each wrapped once: repeated when a signal interrupts it, its error number taken at
/// once, and its result typed.
enum ControlCalls {
  /// Opens the directory at `path`, only to name files in it. See open(2).
  static func openDirectory(_ path: String, followsLinks: Bool = true) throws(Errno) -> Descriptor {
    try open(path, lacuna_O_PATH | O_DIRECTORY | O_CLOEXEC | (followsLinks ? 0 : O_NOFOLLOW))
  }

  /// Makes a directory; false where something has the name already. See mkdir(2).
  static func makeDirectory(_ path: String, _ mode: mode_t) throws(Errno) -> Bool {
    do throws(Errno) {
      // Safe: the string lives as long as the call.
      try check { unsafe mkdir(path, mode) }
      return true
    } catch .fileExists {
      return false
    }
  }

  /// Gives what a descriptor refers to other permissions. See fchmod(2), which a descriptor that only refers to a file is not enough for.
  static func setPermissions(of directory: Descriptor, to mode: mode_t) throws(Errno) {
    // Safe: as above.
    try check { unsafe chmod(directory.path, mode) }
  }

  /// Opens what is at `path`, whatever it is, only to refer to it.
  static func openReference(_ path: String, followsLinks: Bool) throws(Errno) -> Descriptor {
    try open(path, lacuna_O_PATH | O_CLOEXEC | (followsLinks ? 0 : O_NOFOLLOW))
  }

  private static func open(_ path: String, _ flags: Int32) throws(Errno) -> Descriptor {
    // Safe: the string lives as long as the call.
    Descriptor(try check { unsafe Glibc.open(path, flags) })
  }

  /// Which file a descriptor refers to, and whether it is a socket. See fstat(2).
  static func identity(of descriptor: Descriptor) throws(Errno) -> FileIdentity {
    FileIdentity(try status(of: descriptor))
  }

  /// What there is to be known of the file that a descriptor refers to. See fstat(2).
  static func status(of descriptor: Descriptor) throws(Errno) -> stat {
    var status = stat()
    // Safe: the call fills in `status`.
    try check { unsafe fstat(descriptor.number, &status) }
    return status
  }

  /// What a symbolic link says; nil where that cannot be read. See readlink(2).
  static func target(of link: String) -> String? {
    var bytes = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    // Safe: the call fills in no more than the array holds, and says how much; the string lives as long as it.
    let count = unsafe readlink(link, &bytes, bytes.count)
    guard count > 0, count < bytes.count else { return nil }
    return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// A new socket that waits for nothing. See socket(2).
  static func makeSocket() throws(Errno) -> Descriptor {
    let kind = Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    return Descriptor(try check { socket(AF_UNIX, kind, 0) })
  }

  /// Gives a socket that has no name yet the permissions that its name will have; nothing of them comes from the umask but
  /// what it takes away. See fchmod(2): Linux makes the name with the mode of the socket.
  static func setPermissions(_ socket: Descriptor, to mode: mode_t) throws(Errno) {
    try check { fchmod(socket.number, mode) }
  }

  /// Gives a socket a name. See bind(2).
  static func bind(_ socket: Descriptor, to path: String) throws(Errno) {
    try unsafe withAddress(path) { address, length throws(Errno) in
      // Safe: the address lives as long as the call.
      _ = try check { unsafe Glibc.bind(socket.number, address, length) }
    }
  }

  /// Lets clients connect. See listen(2).
  static func listen(_ socket: Descriptor, backlog: Int32) throws(Errno) {
    try check { Glibc.listen(socket.number, backlog) }
  }

  /// Connects, without waiting. See connect(2).
  ///
  /// - Throws: `ECONNREFUSED` where nobody listens, `EAGAIN` where somebody does and is too busy.
  static func connect(_ socket: Descriptor, to path: String) throws(Errno) {
    try unsafe withAddress(path) { address, length throws(Errno) in
      // Safe: as for `bind`.
      _ = try check { unsafe Glibc.connect(socket.number, address, length) }
    }
  }

  /// The next client of a listening socket, without waiting. See accept4(2).
  static func accept(_ socket: Descriptor) throws(Errno) -> Descriptor {
    let flags = Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
    return Descriptor(try check { lacuna_accept4(socket.number, nil, nil, flags) })
  }

  /// Receives some bytes, without waiting; 0 at the end. See recv(2).
  static func receive(_ socket: Descriptor, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
    // Safe: the caller's buffer is valid for the length of the call.
    try checkCount { unsafe recv(socket.number, buffer.baseAddress, buffer.count, Int32(MSG_DONTWAIT)) }
  }

  /// Sends some bytes, without waiting and without a signal. See send(2).
  static func send(_ socket: Descriptor, _ bytes: UnsafeRawBufferPointer) throws(Errno) -> Int {
    let flags = Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL)
    // Safe: as for `receive`.
    return try checkCount { unsafe Glibc.send(socket.number, bytes.baseAddress, bytes.count, flags) }
  }

  /// The same with an array, from a place in it on.
  static func send(_ socket: Descriptor, _ bytes: [UInt8], from start: Int = 0) throws(Errno) -> Int {
    var result: Result<Int, Errno> = .success(0)
    // Safe: the array lives as long as the closure; `start` is inside it.
    unsafe bytes.withUnsafeBytes { buffer in
      do throws(Errno) {
        result = .success(try unsafe send(socket, UnsafeRawBufferPointer(rebasing: buffer[start...])))
      } catch {
        result = .failure(error)
      }
    }
    return try result.get()
  }

  /// Ends a connection in both directions, and wakes the threads that wait for it. See shutdown(2).
  static func shutDown(_ socket: Descriptor) { _ = shutdown(socket.number, Int32(SHUT_RDWR)) }

  /// What to wait for.
  enum Readiness { case reading, writing }

  /// Waits until a socket can be read from or written to, or the other side has gone; false where that took too long. A
  /// time of nil is as long as it takes. See poll(2).
  static func wait(_ socket: Descriptor, for readiness: Readiness, until deadline: Instant?) throws(Errno) -> Bool {
    while true {
      var entry = pollfd(
        fd: socket.number, events: Int16(readiness == .reading ? POLLIN : POLLOUT), revents: 0)
      let milliseconds = deadline.map(\.millisecondsLeft) ?? -1
      // Safe: one entry, which outlives the call.
      let count = unsafe poll(&entry, 1, milliseconds)
      if count > 0 { return true }
      let error = Errno(rawValue: Glibc.errno)
      if count < 0, error != .interrupted { throw error }
      if let deadline, deadline.millisecondsLeft == 0 { return false }
    }
  }

  /// Gives what is called `old` in a directory the name `new`. See renameat2(2).
  static func rename(_ old: String, to new: String, in directory: Descriptor, exchanging: Bool) throws(Errno) {
    let flags = UInt32(exchanging ? RENAME_EXCHANGE : RENAME_NOREPLACE)
    // Safe: the strings live as long as the call.
    try check { unsafe renameat2(directory.number, old, directory.number, new, flags) }
  }

  /// Removes a name from a directory. See unlinkat(2).
  static func unlink(_ name: String, in directory: Descriptor) throws(Errno) {
    // Safe: as above.
    try check { unsafe unlinkat(directory.number, name, 0) }
  }

  /// Starts a thread that nobody joins. See pthread_create(3).
  static func startThread(stackByteCount: Int, _ run: @escaping @Sendable () -> Void) throws(Errno) {
    let status = DetachedThread.start(stackByteCount: stackByteCount, run)
    if status != 0 { throw Errno(rawValue: status) }
  }

  private static func withAddress<Result>(
    _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) throws(Errno) -> Result
  ) throws(Errno) -> Result {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let bytes = Array(path.utf8)
    // Safe: the copy stays inside the field and leaves its last byte zero.
    let fits = unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
      guard bytes.count < field.count else { return false }
      unsafe field.copyBytes(from: bytes)
      return true
    }
    guard fits else { throw .fileNameTooLong }
    var result: Swift.Result<Result, Errno>?
    // Safe: a sockaddr_un may be seen as the sockaddr that it begins with.
    unsafe withUnsafePointer(to: &address) { pointer in
      unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        do throws(Errno) {
          result = .success(try unsafe body(pointer, socklen_t(MemoryLayout<sockaddr_un>.size)))
        } catch {
          result = .failure(error)
        }
      }
    }
    guard let result else { throw .ioError }
    return try result.get()
  }

  @discardableResult
  private static func check(_ call: () -> Int32) throws(Errno) -> Int32 { Int32(try checkCount { Int(call()) }) }

  private static func checkCount(_ call: () -> Int) throws(Errno) -> Int {
    while true {
      let result = call()
      if result != -1 { return result }
      let error = Errno(rawValue: Glibc.errno)
      if error != .interrupted { throw error }
    }
  }
}

/// An open descriptor, closed with the last reference to it, so that its number means the same for as long as anybody has it.
final class Descriptor: Sendable {
  let number: Int32

  init(_ number: Int32) { self.number = number }

  deinit { close(number) }

  /// A path to what it refers to, whatever its name is.
  var path: String { "/proc/self/fd/\(number)" }
}

/// Which file something is.
struct FileIdentity: Equatable {
  var device: UInt64
  var inode: UInt64
  var isSocket: Bool

  init(_ status: stat) {
    device = UInt64(status.st_dev)
    inode = UInt64(status.st_ino)
    isSocket = status.st_mode & S_IFMT == S_IFSOCK
  }
}

/// A point in time, by a clock that only goes forward.
struct Instant: Sendable, Comparable {
  private let nanoseconds: UInt64

  /// The point `milliseconds` from now.
  init(millisecondsFromNow milliseconds: UInt32) {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    nanoseconds =
      UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec) &+ UInt64(milliseconds) &* 1_000_000
  }

  static var now: Instant { Instant(millisecondsFromNow: 0) }

  /// How long it is until then, rounded up; 0 where it has passed.
  var millisecondsLeft: Int32 {
    let now = Instant.now.nanoseconds
    return now >= nanoseconds ? 0 : Int32(clamping: (nanoseconds - now) / 1_000_000 + 1)
  }

  /// How long it has been since; 0 where it has not passed.
  var millisecondsSince: UInt64 {
    let now = Instant.now.nanoseconds
    return now <= nanoseconds ? 0 : (now - nanoseconds) / 1_000_000
  }

  static func < (left: Instant, right: Instant) -> Bool { left.nanoseconds < right.nanoseconds }
}
