import CNBDKit
import Glibc
import Lacuna
import Synchronization

/// The end of the server at the request of a client of the control socket.
///
/// nbdkit 1.32.5 ends when its clients have gone, and waits for those that ask for nothing. So their connections are ended here,
/// for reading at first: what has arrived is done and answered.
enum Ending {
  /// How long after a client was hung up on nothing is written to it any more, in milliseconds.
  private static let graceMilliseconds = 5_000
  private static let stepMilliseconds = 20
  private static let hasBegun = Mutex(false)
  private static let thread = Mutex<WaitingThread?>(nil)

  /// Gets ready for it, when this process forks no more: later, its clients may have used up all threads that it may have.
  static func prepare() throws(LacunaError) {
    let new = try WaitingThread()
    thread.withLock { $0 = new }
  }

  /// Begins to end this process, and returns at once.
  ///
  /// - Returns: the last process to end.
  /// - Throws: `.notSupported` where systemd would start it again.
  static func begin() throws(LacunaError) -> pid_t {
    if let unit = unitOfService { throw refusal(unit) }
    // Once, also where several ask for it: a second signal to the supervisor would mean at once.
    guard let thread = thread.withLock({ $0 }) else { throw LacunaError(.failed, "the server has not begun to serve") }
    hasBegun.withLock { hasBegun in
      guard !hasBegun else { return }
      thread.run { end() }
      hasBegun = true
    }
    return Supervision.supervisor ?? getpid()
  }

  private static func end() -> Never {
    // The answer to the client that asked for it goes out first.
    pause(milliseconds: 100)
    var waited = 0
    while AcceptedSockets.shutDown(writing: false) > 0, waited < 500 {
      pause(milliseconds: stepMilliseconds)
      waited += stepMilliseconds
    }
    // First, so that no other one is started in this one's place, whatever this one dies of.
    if let supervisor = Supervision.supervisor { kill(supervisor, SIGTERM) }
    nbdkit_shutdown()
    waited = 0
    while true {
      _ = AcceptedSockets.shutDown(writing: waited > graceMilliseconds)
      pause(milliseconds: stepMilliseconds)
      waited += stepMilliseconds
    }
  }

  private static func pause(milliseconds: Int) { usleep(useconds_t(milliseconds * 1000)) }

  /// The unit that systemd runs this server as; nil where it does not. Being below a service does not make it one: a shell or a job
  /// may be.
  private static var unitOfService: String? {
    guard let text = unsafe getenv("SYSTEMD_EXEC_PID"), let main = unsafe pid_t(String(cString: text)),
      main == getpid() || main == Supervision.supervisor
    else { return nil }
    return controlGroups.lazy.compactMap { group in group.split(separator: "/").last { $0.hasSuffix(".service") } }
      .first.map(String.init) ?? "UNIT"
  }

  /// The control groups that this process is in, of each hierarchy that there is.
  private static var controlGroups: [String] {
    guard let file = unsafe fopen("/proc/self/cgroup", "re") else { return [] }
    defer { unsafe fclose(file) }
    var groups: [String] = []
    var line = [CChar](repeating: 0, count: 4096)
    // Safe: it writes no more than the array holds, with a NUL at the end.
    while unsafe fgets(&line, Int32(line.count), file) != nil {
      groups.append(String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    return groups
  }

  private static func refusal(_ unit: String) -> LacunaError {
    LacunaError(
      .notSupported,
      "the server is the service \(unit) of systemd, which would start it again; 'systemctl stop \(unit)' ends it, and its socket unit must "
        + "be stopped too, where it has one")
  }
}
