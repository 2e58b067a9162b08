import CNBDKit
import Glibc
import Lacuna
import Synchronization

// The one door between nbdkit and Swift: every callback that can fail goes through `answer`, which turns a thrown error
// into a message, an errno and the value by which nbdkit knows a failure. Nothing else touches `Unmanaged`.

/// An error in the two forms that nbdkit takes.
protocol ReportableError: Error {
  /// One clear line, or nil where nbdkit has said it already.
  var message: String? { get }
  /// What the client gets to see.
  var errno: Int32 { get }
  /// Whether it happens as a matter of course, and is worth a line only where nbdkit runs with `-v`.
  var isRoutine: Bool { get }
}

extension LacunaError: ReportableError {
  var message: String? { description }
  // A zero request that may only be done the fast way fails with it; clients ask to find out.
  var isRoutine: Bool { errno == EOPNOTSUPP }
}

/// A failure that the plugin itself found, or passes on from a callback that can also fail by itself.
struct PluginError: ReportableError {
  var message: String?
  var errno: Int32
  var isRoutine: Bool { false }

  /// A failure of something that nbdkit has described to the user already.
  static var alreadyReported: PluginError { PluginError(message: nil, errno: EIO) }

  /// A failure that `message` describes in one clear line.
  init(_ message: String, errno: Int32 = EINVAL) { self.init(message: message, errno: errno) }

  /// What the store reported.
  init(_ error: LacunaError) { self.init(message: error.message, errno: error.errno) }

  private init(message: String?, errno: Int32) {
    self.message = message
    self.errno = errno
  }
}

/// Gives nbdkit what `body` returns, or reports its error and gives `failure`.
///
/// Inlined, so that a request that succeeds costs neither an allocation nor an indirect call here.
@inline(__always)
func answer<Value, Failure: ReportableError>(failure: Value, _ body: () throws(Failure) -> Value) -> Value {
  do {
    return try body()
  } catch {
    report(error)
    return failure
  }
}

/// Gives nbdkit 0, or reports the error of `body` and gives -1.
@inline(__always)
func answer<Failure: ReportableError>(_ body: () throws(Failure) -> Void) -> CInt {
  answer(failure: -1) { () throws(Failure) in
    try body()
    return 0
  }
}

/// `answer` for a callback on a connection, which `handle` stands for.
@inline(__always)
func answer<Value>(
  _ handle: UnsafeMutableRawPointer?, failure: Value, _ body: (Connection) throws(LacunaError) -> Value
) -> Value {
  guard let handle = unsafe handle else { return failure }
  // Safe: nbdkit calls with a handle between `open`, which retained the connection, and `close`, which releases it. So
  // the reference is good without another retain, which all threads of the connection would contend for.
  return unsafe Unmanaged<Connection>.fromOpaque(handle)._withUnsafeGuaranteedRef { connection in
    answer(failure: failure) { () throws(LacunaError) in try body(connection) }
  }
}

/// `answer` for a request on a connection, whose only result is that it was done.
@inline(__always)
func answer(_ handle: UnsafeMutableRawPointer?, _ body: (Connection) throws(LacunaError) -> Void) -> CInt {
  unsafe answer(handle, failure: -1) { connection throws(LacunaError) in
    try body(connection)
    return 0
  }
}

/// `answer` for `open`: keeps the connection alive until its handle comes to `closeHandle`.
func answerWithHandle(_ body: () throws(PluginError) -> Connection) -> UnsafeMutableRawPointer? {
  unsafe answer(failure: nil) { () throws(PluginError) in
    unsafe Unmanaged.passRetained(try body()).toOpaque()
  }
}

/// Gives up the connection that `handle` stands for.
func closeHandle(_ handle: UnsafeMutableRawPointer?) {
  guard let handle = unsafe handle else { return }
  // Safe: this is the last use of a handle that `answerWithHandle` made, and undoes its retain.
  unsafe Unmanaged<Connection>.fromOpaque(handle).release()
}

// What goes to the log is one line, in which nothing that a client or a store chose can pass for something else (`visible`).

/// What the log gets of errors that repeat: clients can cause any number of them.
private let repeatedErrors = Mutex(RepeatedLines())

/// Tells the user what happened and nbdkit what to tell the client.
@inline(never)
private func report(_ error: some ReportableError) {
  if let message = error.message {
    if error.isRoutine {
      debug(message)
    } else {
      for line in repeatedErrors.withLock({ $0.take(message.visible, at: milliseconds()) }) { writeError(line) }
    }
  }
  nbdkit_set_error(error.errno > 0 ? error.errno : EIO)
}

/// Tells the user how many errors there were that the log did not get.
func sumUpErrors() {
  for line in repeatedErrors.withLock({ $0.takeAll(at: milliseconds()) }) { writeError(line) }
}

/// Tells the user of an error that is no client's, on one line.
func say(error message: String) { writeError(message.visible) }

private func writeError(_ line: String) {
  unsafe line.withCString { text in unsafe withVaList([text]) { unsafe nbdkit_verror("%s", $0) } }
}

/// By a clock that only goes forward.
private func milliseconds() -> UInt64 {
  var time = timespec()
  unsafe clock_gettime(CLOCK_MONOTONIC, &time)
  return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
}

/// Says something on one line where nbdkit runs with `-v`.
func debug(_ message: String) {
  unsafe message.visible.withCString { text in unsafe withVaList([text]) { unsafe nbdkit_vdebug("%s", $0) } }
}

/// Tells the user something that is no failure, on one line.
func warn(_ message: String) {
  // Not through nbdkit, which would call it an error or say it only with -v.
  let line = Array("nbdkit: lacuna: warning: \(message.visible)\n".utf8)
  _ = unsafe write(STDERR_FILENO, line, line.count)
}
