import Bytes
import LacunaTestSupport
import Testing

@Suite struct LockConcurrencyTests {
  private struct Broken: Error, Equatable {}

  @Test func `no addition under a lock is lost`() throws {
    let total = Locked(0)
    try inThreads(4) { _ in for _ in 0..<10_000 { total.withLock { $0 += 1 } } }
    #expect(total.withLock { $0 } == 40_000)
  }

  /// What the lock in the next test guards.
  private final class Counter: @unchecked Sendable {
    var count = 0
  }

  @Test func `a lock without a state lets one thread in at a time`() throws {
    let (lock, counter) = (Lock(), Counter())
    try inThreads(4) { _ in for _ in 0..<10_000 { lock.withLock { counter.count += 1 } } }
    #expect(counter.count == 40_000)
    #expect(throws: Broken()) { try lock.withLock { () throws(Broken) in throw Broken() } }
    #expect(lock.withLock { counter.count } == 40_000)
  }

  @Test func `readers never see half of what a writer does`() throws {
    let pair = ReadWriteLocked((0, 0))
    try inThreads(4) { index in
      for _ in 0..<10_000 {
        if index == 0 {
          pair.withWriteLock {
            $0.0 += 1
            $0.1 += 1
          }
        } else {
          try pair.withReadLock { try check($0.0 == $0.1, "\($0.0) and \($0.1)") }
        }
      }
    }
    #expect(pair.withReadLock { $0.0 } == 10_000)
  }

  @Test func `two readers are inside at once`() throws {
    let lock = ReadWriteLocked(0)
    let gates = [Gate(), Gate()]
    // Each opens the other's gate from inside; were they not inside together, this would never end.
    try inThreads(2) { index in
      lock.withReadLock { _ in
        gates[1 - index].open()
        gates[index].pass()
      }
    }
  }

  @Test func `an error leaves the lock free and what was changed changed`() {
    let lock = Locked(1)
    #expect(throws: Broken()) {
      try lock.withLock { value throws(Broken) in
        value = 2
        throw Broken()
      }
    }
    #expect(lock.withLock { $0 } == 2)
    let readWrite = ReadWriteLocked(1)
    #expect(throws: Broken()) { try readWrite.withReadLock { _ throws(Broken) in throw Broken() } }
    #expect(throws: Broken()) {
      try readWrite.withWriteLock { value throws(Broken) in
        value = 2
        throw Broken()
      }
    }
    #expect(readWrite.withReadLock { $0 } == 2)
  }
}
