import Bytes
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

@Suite struct GroupCommitTests {
  let device = JournalTestDevice(byteCount: deviceByteCount)

  @Test func `a commit costs one sync, and none where nothing is new`() throws {
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    try commit.flush()
    #expect(device.withState { $0.syncCount } == 0)
    for round in 1...5 {
      let record = try #require(try ring.append(map(1)))
      try commit.flush(through: record.sequence)
      try commit.flush()
      #expect(device.withState { $0.syncCount } == round)
      #expect(ring.durableSequence == record.sequence)
    }
    try commit.syncAll()
    #expect(device.withState { $0.syncCount } == 6)
    #expect(commit.syncCount == 6)
  }

  @Test func `the next records tell what is durable`() throws {
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    _ = try ring.append(map(1))
    try commit.flush()
    _ = try ring.append(map(1))
    let marker = try #require(try ring.append(.commitMarker))
    #expect(marker == JournalRecord(sequence: 4, durableSequence: 2, change: .commitMarker))
    let (records, end) = try replay(device)
    #expect(records.map(\.durableSequence) == [0, 0, 2, 2])
    #expect(end == JournalEnd(lastSequence: 4, durableSequence: 2, usedByteCount: 4096 + 88 + 48))
  }

  @Test func `what is durable is never written again`() throws {
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    var durableEnd = 4096
    for round in 0..<10 {
      for _ in 0...round % 3 { _ = try ring.append(map(1 + round)) }
      let writes = device.withState { $0.unsynced.map(\.offset) }
      #expect(writes.allSatisfy { $0 >= durableEnd })
      durableEnd = 4096 + (Int(ring.usedByteCount) + 4095) & ~4095
      try commit.flush()
    }
  }

  @Test func `records made during a sync go into a fresh block and need another`() throws {
    let began = Gate()
    let mayEnd = Gate()
    let device = JournalTestDevice(byteCount: deviceByteCount) {
      began.open()
      mayEnd.pass()
    }
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    try inThreads([
      { try commit.flush(through: 1) },
      {
        began.pass()
        let record = try ring.append(map(1))
        try check(device.withState { $0.unsynced.last?.offset } == 8192, "it shares the block")
        try check(record?.durableSequence == 0, "the sync still runs")
        mayEnd.open()
        try commit.flush(through: 2)
      },
    ])
    #expect(commit.syncCount == 2)
    #expect(ring.durableSequence == 2)
    #expect(try replay(JournalTestDevice(bytes: device.withState { $0.durable })).records.count == 2)
  }

  @Test func `a barrier does not make do with a sync that began before it`() throws {
    let began = Gate()
    let mayEnd = Gate()
    let device = JournalTestDevice(byteCount: deviceByteCount) {
      began.open()
      mayEnd.pass()
    }
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    try inThreads([
      { try commit.flush() },
      {
        began.pass()
        try [UInt8](repeating: 7, count: 512).withUnsafeBytes { try device.write($0, at: 0) }
        mayEnd.open()
        try commit.syncAll()
      },
    ])
    #expect(commit.syncCount == 2)
    #expect(device.withState { $0.durable[0] } == 7)
  }

  @Test func `whoever comes during a sync shares the next one`() throws {
    let began = Gate()
    let mayEnd = Gate()
    let device = JournalTestDevice(byteCount: deviceByteCount) {
      began.open()
      mayEnd.pass()
    }
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    let followers = (0..<63).map { _ in
      { @Sendable () throws in
        began.pass()
        let sequence = try ring.appendUnmap(inode: 1, logical: 0..<1)
        if ring.lastSequence == 64 { mayEnd.open() }
        try commit.flush(through: sequence ?? 0)
        try check(ring.durableSequence >= sequence ?? .max, "not durable")
      }
    }
    try inThreads([{ try commit.flush() }] + followers)
    #expect(commit.syncCount == 2)
    #expect(try replay(JournalTestDevice(bytes: device.withState { $0.durable })).records.count == 64)
  }

  @Test func `a failed sync is final for everyone`() throws {
    let began = Gate()
    let mayEnd = Gate()
    let device = JournalTestDevice(byteCount: deviceByteCount) {
      began.open()
      mayEnd.pass()
    }
    device.withState { $0.failsSyncs = true }
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    try inThreads([
      { try check(isDeviceFailure(.sync, thrownCode { try commit.flush() }), "the leader gets the device's error") },
      {
        began.pass()
        _ = try ring.append(map(1))
        mayEnd.open()
        try check(thrownCode { try commit.flush() } == .failed, "a follower fails too")
      },
    ])
    device.withState { $0.failsSyncs = false }
    #expect(thrownCode { try commit.flush() } == .failed)
    #expect(thrownCode { try commit.flush(through: 0) } == .failed)
    #expect(thrownCode { try commit.syncAll() } == .failed)
    #expect(thrownCode { _ = try ring.append(map(1)) } == .failed)
    #expect(ring.durableSequence == 0)
    #expect(device.withState { ($0.syncCount, $0.writeCount) } == (1, 2))
  }
}

@Suite struct GroupCommitConcurrencyTests {
  @Test func `many committers need few syncs, and each gets what it asked for`() throws {
    let device = JournalTestDevice(byteCount: deviceByteCount) { usleep(500) }
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    let tail = Locked(JournalPosition(offset: 0, sequence: 1))
    try inThreads(16) { index in
      for round in 0..<20 {
        var sequence = try ring.appendUnmap(inode: UInt64(index), logical: 0..<1)
        while sequence == nil {
          // A checkpoint: what is before the tail needs no replay any more.
          try tail.withLock { tail in
            let position = ring.cut()
            try commit.syncAll()
            ring.advanceTail(to: position)
            tail = position
          }
          sequence = try ring.appendUnmap(inode: UInt64(index), logical: 0..<1)
        }
        if round % 5 == 4 { try commit.syncAll() } else { try commit.flush(through: sequence ?? 0) }
        try check(ring.durableSequence >= sequence ?? .max, "not durable")
      }
    }
    #expect(commit.syncCount < 160)
    let end = try replay(JournalTestDevice(bytes: device.withState { $0.durable }), from: tail.withLock { $0 }).end
    #expect(end.lastSequence == 320)
  }
}
