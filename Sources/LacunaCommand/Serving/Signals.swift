internal import CLinux
internal import Glibc

/// The signals that a supervisor waits for, in place of being interrupted by them: those that ask it to end, and the one that
/// tells of the end of a child.
struct Signals {
  private var awaited = sigset_t()
  private var before = sigset_t()
  /// Can be read from while one waits.
  private let descriptor: Int32

  /// Blocks them. Whoever started this process with one of them ignored, as nohup(1) does, wants it to stay so.
  init() throws {
    signal(SIGCHLD, SIG_DFL)
    // That the reader of the output has gone shows as an error of writing.
    signal(SIGPIPE, SIG_IGN)
    unsafe sigemptyset(&awaited)
    for number in [SIGTERM, SIGINT, SIGHUP, SIGCHLD] where !Self.isIgnored(number) {
      unsafe sigaddset(&awaited, number)
    }
    unsafe sigprocmask(SIG_BLOCK, &awaited, &before)
    descriptor = unsafe lacuna_signalfd(&awaited)
    guard descriptor >= 0 else { throw Failure("cannot wait for signals: \(Process.text(ofError: errno))") }
  }

  /// Waits until there is one, or another descriptor can be read from, or so much time has passed.
  ///
  /// - Parameter milliseconds: nil for as long as it takes.
  func wait(orFor other: Int32, milliseconds: Int?) {
    var entries = [descriptor, other].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    // Safe: the kernel reads and fills in as many entries as there are. The caller looks at what has come.
    _ = unsafe poll(&entries, nfds_t(entries.count), milliseconds.map { Int32(clamping: $0) } ?? -1)
  }

  /// The next one that comes; nil where none does for so long.
  ///
  /// - Parameter milliseconds: how long to wait; nil for as long as it takes.
  func next(milliseconds: Int?) -> Int32? {
    var set = awaited
    while true {
      let number: Int32
      if let milliseconds {
        var time = timespec(tv_sec: milliseconds / 1000, tv_nsec: milliseconds % 1000 * 1_000_000)
        // Safe: the kernel reads a set and a time, which outlive the call.
        number = unsafe sigtimedwait(&set, nil, &time)
      } else {
        number = unsafe sigwaitinfo(&set, nil)
      }
      if number > 0 { return number }
      if errno != EINTR { return nil }
    }
  }

  /// Makes them what they were, for a program that is to run in this process.
  func restore() {
    var mask = before
    signal(SIGPIPE, SIG_DFL)
    unsafe sigprocmask(SIG_SETMASK, &mask, nil)
  }

  private static func isIgnored(_ number: Int32) -> Bool {
    var action = sigaction()
    // Safe: the kernel fills in a structure of this type, which outlives the call. SIG_IGN is the address 1.
    guard unsafe sigaction(number, nil, &action) == 0 else { return false }
    return unsafe unsafeBitCast(action.__sigaction_handler.sa_handler, to: Int.self) == 1
  }
}
