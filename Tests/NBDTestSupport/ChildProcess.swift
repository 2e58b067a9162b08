import Bytes
import Glibc

/// How a process ended.
package enum ExitStatus: Equatable, Sendable, CustomStringConvertible {
  case exited(Int32)
  case killed(signal: Int32)

  init(waitStatus: Int32) {
    let signal = waitStatus & 0x7f
    self = signal == 0 ? .exited((waitStatus >> 8) & 0xff) : .killed(signal: signal)
  }

  package var description: String {
    switch self {
    case .exited(let code): "exited with status \(code)"
    case .killed(let signal): "was killed by signal \(signal) (\(String(cString: strsignal(signal))))"
    }
  }
}

/// A process started by a test, with its output in files, that never outlives the test run or its own time limit.
///
/// A thread of its own starts it and stays until it ends: nbdkit's `--exit-with-parent` takes the death of the thread
/// that started it for the death of its parent.
package final class ChildProcess: Sendable {
  private enum State: Sendable {
    case starting
    case failed(errno: Int32)
    case running(pid: Int32)
    case ended(ExitStatus)
  }

  private let state = Locked(State.starting)
  /// The command line, for messages.
  package let commandLine: String

  /// Starts `arguments`, found through PATH, with standard input from /dev/null.
  package init(
    _ arguments: [String], standardOutput: String, standardError: String, lifetimeSecondsMax: Double
  ) throws {
    commandLine = arguments.joined(separator: " ")
    try startThread { [state] in
      ChildProcess.keep(
        arguments, standardOutput: standardOutput, standardError: standardError,
        deadline: Deadline(secondsFromNow: lifetimeSecondsMax), state: state)
    }
    while case .starting = state.withLock({ $0 }) { usleep(500) }
    if case .failed(let code) = state.withLock({ $0 }) { throw SystemError(call: commandLine, code: code) }
  }

  /// How the process ended, or nil while it runs.
  package var exitStatus: ExitStatus? {
    state.withLock { state in
      if case .ended(let status) = state { status } else { nil }
    }
  }

  /// The process's number while it runs.
  package var pid: Int32? {
    state.withLock { state in
      if case .running(let pid) = state { pid } else { nil }
    }
  }

  /// Sends a signal, unless the process has ended.
  package func send(_ signal: Int32) {
    // Under the lock, so that the process cannot be reaped and its number given to another in between.
    state.withLock { state in
      if case .running(let pid) = state { _ = kill(pid, signal) }
    }
  }

  /// Waits for the end, and kills the process when `seconds` have passed.
  package func waitForEnd(seconds: Double) -> ExitStatus {
    if !Deadline(secondsFromNow: seconds).wait(until: { exitStatus != nil }) {
      send(SIGKILL)
      _ = Deadline(secondsFromNow: 10).wait { exitStatus != nil }
    }
    return exitStatus ?? .killed(signal: SIGKILL)
  }

  private static func keep(
    _ arguments: [String], standardOutput: String, standardError: String, deadline: Deadline, state: Locked<State>
  ) {
    var pid: Int32 = 0
    let status = spawn(arguments, standardOutput: standardOutput, standardError: standardError, pid: &pid)
    guard status == 0 else { return state.withLock { $0 = .failed(errno: status) } }
    state.withLock { [pid] in $0 = .running(pid: pid) }
    var mayRun = true
    while true {
      let hasEnded = state.withLock { [pid] state in
        var waitStatus: Int32 = 0
        let answer = waitpid(pid, &waitStatus, WNOHANG)
        guard answer != 0 else { return false }
        state = .ended(answer == pid ? ExitStatus(waitStatus: waitStatus) : .killed(signal: 0))
        return true
      }
      if hasEnded { return }
      if mayRun && deadline.hasPassed {
        mayRun = false
        kill(pid, SIGKILL)
      }
      usleep(2_000)
    }
  }

  private static func spawn(
    _ arguments: [String], standardOutput: String, standardError: String, pid: inout Int32
  ) -> Int32 {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, standardOutput, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, standardError, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0o600)
    // Threads of the test run may hold signals back; the child starts with none held back and none ignored.
    var attributes = posix_spawnattr_t()
    posix_spawnattr_init(&attributes)
    defer { posix_spawnattr_destroy(&attributes) }
    var signals = sigset_t()
    sigemptyset(&signals)
    posix_spawnattr_setsigmask(&attributes, &signals)
    sigfillset(&signals)
    posix_spawnattr_setsigdefault(&attributes, &signals)
    posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF))
    var cArguments: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) }
    cArguments.append(nil)
    defer { for argument in cArguments { free(argument) } }
    return posix_spawnp(&pid, arguments[0], &actions, &attributes, cArguments, environ)
  }
}
