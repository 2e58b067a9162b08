import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

@Suite struct ThreadSignalTests {
  /// nbdkit waits for signals in threads of its own.
  @Test func `no thread that the plugin starts takes a signal`() throws {
    try PrivateDirectory.run { directory in
      try ServedStore.run(directory.file("s.lacuna"), ["size=1M"]) { store in
        let pid = try #require(store.server.pid)
        // Whoever is answered knows that all threads are there.
        _ = try store.control.call(GetStoreInfo())
        // Without a client, all but the first one are the plugin's: for checkpoints, for the control socket, for its client.
        let threads = try FinishedCommand.run(["ls", "/proc/\(pid)/task"]).standardOutput.split(separator: "\n")
        let own = threads.filter { $0 != "\(pid)" }
        #expect(own.count >= 3, "\(threads)")
        for thread in own {
          let status = try FinishedCommand.run(["cat", "/proc/\(pid)/task/\(thread)/status"]).standardOutput
          let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("SigBlk:") })
          let blocked = try #require(UInt64(line.dropFirst(7).drop { $0.isWhitespace }, radix: 16))
          // Two cannot be blocked, and the C library keeps two for itself.
          let open = (1...64).filter { blocked >> UInt64($0 - 1) & 1 == 0 }
          #expect(Set(open).isSubset(of: [SIGKILL, SIGSTOP, 32, 33].map(Int.init)), "thread \(thread): \(line)")
        }
      }
    }
  }
}
