import Glibc
import Testing

@testable import Lacuna

@Suite struct `What is said of those that are hung up on` {
  private func peer(_ user: uid_t) -> Peer { Peer(user: user, process: 4711) }

  @Test func `is one line a minute for each of them, and some for all`() {
    let log = RefusalLog(intervalMilliseconds: 300, lineCountMax: 3)
    let line = log.line(about: peer(54_321), "/s.sock")
    #expect(line?.contains("uid 54321, process 4711 on the control socket /s.sock") == true)
    #expect((0..<1000).allSatisfy { _ in log.line(about: peer(54_321), "/s.sock") == nil })
    #expect((1...1000).compactMap { log.line(about: peer($0), "/s.sock") }.count == 2)
    usleep(350_000)
    #expect(log.line(about: peer(7), "/s.sock")?.contains("; 998 more were hung up on before") == true)
  }

  @Test func `is believed of numbers that say who it is`() {
    let believed = Believed(owner: 54_321)
    #expect([geteuid(), 0, 54_321].allSatisfy(believed.includes))
    #expect(!believed.includes(54_322))
    #expect(!Believed(owner: nil).includes(54_321))
  }
}
