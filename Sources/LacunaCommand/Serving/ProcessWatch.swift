internal import CLinux
internal import Glibc
internal import Lacuna

/// A process of somebody else's whose end is waited for.
final class ProcessWatch {
  let pid: Int32
  /// Refers to the process, whatever has its number later; -1 where it has ended already.
  private let descriptor: Int32

  private static let secondsMax: Int32 = 120

  init(_ pid: Int32) {
    self.pid = pid
    descriptor = lacuna_pidfd_open(pid)
  }

  deinit { if descriptor >= 0 { close(descriptor) } }

  /// Returns when it has ended.
  func waitForEnd() throws(LacunaError) {
    guard descriptor >= 0 else { return }
    var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
    // Safe: one entry, which outlives the call.
    while unsafe poll(&entry, 1, Self.secondsMax * 1000) <= 0 {
      guard errno == EINTR else {
        throw LacunaError(
          .busy, "the server, process \(pid), was asked to end and has not within \(Self.secondsMax) seconds")
      }
    }
  }
}
