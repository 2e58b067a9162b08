import CLinux
import Glibc

/// The process that keeps this nbdkit running, where there is one: `lacuna serve`.
enum Supervision {
  /// Its number, which it gives in the environment; nil where this process was started by something else.
  static let supervisor: pid_t? = {
    guard let text = unsafe getenv("LACUNA_SUPERVISOR"), let number = unsafe pid_t(String(cString: text)),
      number == getppid()
    else { return nil }
    return number
  }()

  /// Sees to it that this process ends with its supervisor, at once: without that one no process looks after the socket.
  ///
  /// nbdkit, which was given its socket, sees to it that it gets SIGTERM then, and with that would wait for idle clients and keep
  /// the store from others. Death loses nothing that was acknowledged.
  static func endWithSupervisor() {
    guard let supervisor else { return }
    // The signal is not sent for a parent that has gone already.
    guard lacuna_endWithParent() == 0, getppid() == supervisor else { _exit(1) }
  }
}
