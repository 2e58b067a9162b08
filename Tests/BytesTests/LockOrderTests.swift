import Foundation
import Testing

@testable import Bytes

/// Debug builds end where a thread takes its locks in an order in which two threads could wait for each other.
@Suite struct LockOrderTests {
  @Test func `locks are taken from the outermost rank to the innermost, and again after they are left`() {
    let outer = Lock(rank: .checkpointTurn)
    let inner = Locked(rank: .leaf, 0)
    for _ in 0..<2 { outer.withLock { inner.withLock { $0 += 1 } } }
    inner.withLock { $0 += 1 }
    outer.withLock {}
    #expect(inner.withLock { $0 } == 3)
  }

  @Test func `a lock of a lower rank is not taken while one of a higher rank is held`() async {
    await #expect(processExitsWith: .failure) {
      Lock(rank: .leaf).withLock { Lock(rank: .checkpointTurn).withLock {} }
    }
  }

  @Test func `two locks of one rank are not held together`() async {
    await #expect(processExitsWith: .failure) {
      Lock(rank: .spaceMap).withLock { Locked(rank: .spaceMap, 0).withLock { $0 += 1 } }
    }
  }

  @Test func `monitors and reader-writer locks have ranks, too`() async {
    await #expect(processExitsWith: .failure) {
      Monitor(rank: .groupCommit, 0).change { _ in Lock(rank: .volumeWriters).withLock {} }
    }
    await #expect(processExitsWith: .failure) {
      ReadWriteLock(rank: .fileMemory).withReadLock { Lock(rank: .volumeWriters).withLock {} }
    }
  }

  @Test func `a checkpoint alone takes the locks of the writers of several volumes`() async {
    let (turn, one, other) = (
      Lock(rank: .checkpointTurn), Locked(rank: .volumeWriters, 0), Locked(rank: .volumeWriters, 0)
    )
    turn.withLock { one.withLock { _ in other.withLock { $0 += 1 } } }
    await #expect(processExitsWith: .failure) {
      Locked(rank: .volumeWriters, 0).withLock { _ in Locked(rank: .volumeWriters, 0).withLock { $0 += 1 } }
    }
  }

  @Test func `what must be held is held by this thread`() async {
    let locked = Locked(rank: .volumeWriters, 1)
    locked.lock()
    #expect(locked.assumingLocked { $0 } == 1)
    locked.unlock()
    await #expect(processExitsWith: .failure) { Locked(rank: .volumeWriters, 1).assumingLocked { $0 += 1 } }
  }

  @Test func `nothing waits for a device under a lock that writers take`() async {
    Lock(rank: .spaceSlowPath).withLock { LockOrder.requireMayWait() }
    Locked(rank: .volumeWriters, 0).withLock { _ in
      LockOrder.allowingInputAndOutput { LockOrder.requireMayWait() }
    }
    await #expect(processExitsWith: .failure) {
      Locked(rank: .volumeWriters, 0).withLock { _ in LockOrder.requireMayWait() }
    }
  }

  @Test func `the table in the design document has every rank, in order`() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "docs/design.md"), encoding: .utf8)
    let rows = text.split(separator: "\n").filter { $0.hasPrefix("| `") }
    let named = rows.compactMap { row in row.split(separator: "`").dropFirst().first.map(String.init) }
    let ranks = LockRank.allCases.map { "\($0)" }
    #expect(named.filter(ranks.contains) == ranks)
  }
}
