internal import CLinux
internal import Glibc

/// One nbdkit that serves sockets which this process listens on.
///
/// It ends when this process does, however that ends. Only for a process with one thread, which starts it and outlives it.
struct ServedProcess {
  let pid: pid_t
  /// Where nbdkit says that it serves; its own end is open as long as it lives.
  private let readiness: Int32

  /// The descriptors in nbdkit: the socket as a service manager passes it (sd_listen_fds(3)), and where it writes its number.
  private static let socketInside: Int32 = 3
  private static let readinessInside: Int32 = 4
  /// The option by which nbdkit says that it serves.
  static let readinessOptions = ["--pidfile", "/proc/self/fd/\(readinessInside)"]

  /// Starts nbdkit.
  ///
  /// - Parameters:
  ///   - command: its program and its arguments, with ``readinessOptions``.
  ///   - socket: what it accepts clients from.
  ///   - log: what becomes its standard error.
  ///   - restoringSignals: gives the new process the signals that a program expects.
  static func start(
    _ command: [String], socket: Int32, log: Int32, restoringSignals: () -> Void
  ) throws -> ServedProcess {
    let (readEnd, writeEnd) = try Process.makePipe()
    let parent = getpid()
    let child = try Process.fork()
    guard child == 0 else {
      close(writeEnd)
      _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
      return ServedProcess(pid: child, readiness: readEnd)
    }
    // The signal is not sent for a parent that has gone already.
    guard lacuna_endWithParent() == 0, getppid() == parent else { _exit(1) }
    restoringSignals()
    // First out of the way of the numbers that they are to have, and with the flag that closes these copies.
    let copies = [(socket, socketInside), (writeEnd, readinessInside)].map { source, target in
      (fcntl(source, F_DUPFD_CLOEXEC, 10), target)
    }
    let input = unsafe open("/dev/null", O_RDONLY)
    guard input >= 0, dup2(input, STDIN_FILENO) >= 0, copies.allSatisfy({ dup2($0, $1) >= 0 }),
      dup2(log, STDERR_FILENO) >= 0
    else { _exit(1) }
    if input != STDIN_FILENO, input != socketInside, input != readinessInside { close(input) }
    unsafe setenv("LISTEN_FDS", "1", 1)
    unsafe setenv("LISTEN_PID", "\(getpid())", 1)
    // The plugin tells it that an end was asked for.
    unsafe setenv("LACUNA_SUPERVISOR", "\(parent)", 1)
    Terminal.say("cannot run \(command[0]): \(Process.replace(command))")
    _exit(1)
  }

  /// Whether it has said by now that it serves; does not wait.
  func hasBegunToServe() -> Bool {
    var byte: UInt8 = 0
    // Safe: one byte, which outlives the call.
    return unsafe read(readiness, &byte, 1) == 1
  }

  /// How it ended; nil while it runs. Once there is an answer, no other call may follow.
  func end() -> ProcessEnd? {
    var status: Int32 = 0
    // Safe: the kernel fills in a number, which outlives the call.
    guard unsafe waitpid(pid, &status, WNOHANG) == pid else { return nil }
    close(readiness)
    return ProcessEnd(waitStatus: status)
  }
}

/// How a process ended.
enum ProcessEnd: Equatable {
  case exited(Int32)
  case killed(signal: Int32)

  /// - Parameter status: as wait(2) has it, of a process that has ended.
  init(waitStatus status: Int32) {
    let signal = status & 0x7f
    self = signal == 0 ? .exited((status >> 8) & 0xff) : .killed(signal: signal)
  }

  /// The exit code that a shell would show.
  var code: Int32 {
    switch self {
    case .exited(let code): code
    case .killed(let signal): 128 + signal
    }
  }

  /// In words, for "nbdkit ...".
  var text: String {
    switch self {
    case .exited(let code): "failed with exit code \(code)"
    case .killed(let signal): "was killed by \(Self.names[signal] ?? "signal \(signal)")"
    }
  }

  private static let names = [
    SIGABRT: "SIGABRT", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE", SIGHUP: "SIGHUP", SIGILL: "SIGILL", SIGINT: "SIGINT",
    SIGKILL: "SIGKILL", SIGSEGV: "SIGSEGV", SIGTERM: "SIGTERM", SIGTRAP: "SIGTRAP", SIGXCPU: "SIGXCPU",
    SIGXFSZ: "SIGXFSZ",
  ]
}
