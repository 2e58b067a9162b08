import Bytes
import Glibc
import LacunaTestSupport
import Testing

@Suite struct MonitorConcurrencyTests {
  @Test func `threads take turns`() throws {
    let turn = Monitor(0)
    try inThreads(4) { index in
      for round in 0..<100 {
        let found: Int = turn.wait { $0 % 4 == index ? $0 : nil }
        try check(found == round * 4 + index, "thread \(index) had \(found) in round \(round)")
        turn.change { $0 += 1 }
      }
    }
    #expect(turn.wait { $0 } == 400)
  }

  /// The kernel is asked to wait by its own clock: by the time of day, one that is set back would make the wait that much longer.
  @Test(.enabled(if: access("/proc/self/syscall", R_OK) == 0))
  func `a wait with an end does not go by the time of day`() throws {
    let thread = Monitor<String?>(nil)
    let monitor = Monitor(false)
    let status = DetachedThread.start {
      var path = [CChar](repeating: 0, count: 100)
      let count = readlink("/proc/thread-self", &path, path.count)
      let own = String(decoding: path.prefix(max(count, 0)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
      thread.change { $0 = own }
      _ = monitor.wait(milliseconds: 600_000) { $0 ? true : nil }
      monitor.change { $0 = false }
    }
    try #require(status == 0)
    let own = thread.wait { $0 }
    // The number of the call and its arguments, of which the second is what to do, and the fourth the end.
    var call: [UInt64] = []
    while call.count < 5 || call[2] & 0x7F != 9 || call[4] == 0 {
      usleep(1000)
      let text = try Self.text(of: "/proc/\(own)/syscall")
      call = text.split(separator: " ").compactMap { word in
        word.hasPrefix("0x") ? UInt64(word.dropFirst(2), radix: 16) : UInt64(word)
      }
    }
    let isByTimeOfDay: UInt64 = 0x100  // FUTEX_CLOCK_REALTIME
    #expect(call[2] & isByTimeOfDay == 0)
    monitor.change { $0 = true }
    let _: Bool = monitor.wait { $0 ? nil : true }
  }

  private static func text(of path: String) throws -> String {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    defer { close(file) }
    var bytes = [UInt8](repeating: 0, count: 400)
    let count = bytes.withUnsafeMutableBytes { read(file, $0.baseAddress, $0.count) }
    guard count > 0 else { throw CheckFailure("\(path) cannot be read: error \(errno)") }
    return String(decoding: bytes[..<count], as: UTF8.self)
  }

  @Test func `an error ends the wait and leaves the lock free`() {
    struct Broken: Error, Equatable {}
    let monitor = Monitor(1)
    #expect(throws: Broken()) { let _: Int = try monitor.wait { _ throws(Broken) in throw Broken() } }
    #expect(throws: Broken()) {
      try monitor.change { value throws(Broken) in
        value = 2
        throw Broken()
      }
    }
    #expect(monitor.wait { $0 } == 2)
  }
}
