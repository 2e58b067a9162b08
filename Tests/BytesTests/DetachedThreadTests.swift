import Bytes
import Glibc
import LacunaTestSupport
import Testing

@Suite struct DetachedThreadTests {
  @Test func `a thread has all signals blocked, and the one that made it as before`() throws {
    var before = sigset_t()
    pthread_sigmask(SIG_SETMASK, nil, &before)
    let seen = Monitor<[Int32]?>(nil)
    let status = DetachedThread.start(stackByteCount: 256 << 10) {
      var mask = sigset_t()
      pthread_sigmask(SIG_SETMASK, nil, &mask)
      let open = (1...64).filter { sigismember(&mask, $0) == 0 }
      seen.change { $0 = open }
    }
    try #require(status == 0)
    let open = seen.wait { $0 }
    // Two cannot be blocked, and the C library keeps two for itself.
    #expect(Set(open).isSubset(of: [SIGKILL, SIGSTOP, 32, 33]))
    var after = sigset_t()
    pthread_sigmask(SIG_SETMASK, nil, &after)
    #expect((1...64).allSatisfy { sigismember(&before, $0) == sigismember(&after, $0) })
  }
}
