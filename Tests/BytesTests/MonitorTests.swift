import Bytes
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
