import Bytes
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

@Suite struct JournalRingTests {
  let device = JournalTestDevice(byteCount: deviceByteCount)

  @Test func `each record costs one write, of no more than its blocks`() throws {
    let ring = try makeRing(device)
    for count in [1, 1, 1, 2000, 1] { _ = try #require(try ring.append(map(count))) }
    let writes = device.withState { $0.unsynced.map { ($0.offset - 4096, $0.bytes.count) } }
    // The first to touch a block fills it, so that the kernel need not read it; then come the new bytes alone.
    #expect(writes.map(\.0) == [0, 88, 176, 264, 8344])
    #expect(writes.map(\.1) == [4096, 88, 88, 3 * 4096 - 264, 88])
  }

  @Test func `numbers rise by one and start where told`() throws {
    let ring = try makeRing(device, at: 8192, sequence: 77)
    #expect(ring.lastSequence == 76)
    #expect(try (0..<3).map { _ in try #require(try ring.append(.commitMarker)).sequence } == [77, 78, 79])
    #expect(try replay(device, from: JournalPosition(offset: 8192, sequence: 77)).records.count == 3)
  }

  @Test func `after a cut the ring goes on in a fresh block`() throws {
    let ring = try makeRing(device)
    #expect(ring.cut() == JournalPosition(offset: 0, sequence: 1))
    _ = try ring.append(map(1))
    #expect(ring.cut() == JournalPosition(offset: 4096, sequence: 2))
    #expect(ring.cut() == JournalPosition(offset: 4096, sequence: 2))
    let next = try #require(try ring.append(map(1)))
    #expect(try replay(device, from: JournalPosition(offset: 4096, sequence: 2)).records == [next])
    #expect(try replay(device).records.count == 2)
  }

  @Test func `a full ring takes nothing and has room again once the tail moved`() throws {
    let ring = try makeRing(device)
    var count = 0
    while try ring.append(map(4096)) != nil { count += 1 }
    #expect(count == 3)
    while try ring.append(map(1)) != nil { count += 1 }
    let writes = device.withState { $0.writeCount }
    #expect(ring.usedByteCount <= 65536 - 8192 && ring.usedByteCount > 65536 - 8192 - 88)
    #expect(try ring.append(map(1)) == nil)
    // A marker still fits, and only a block's worth of them.
    var markers = 0
    while try ring.append(.commitMarker) != nil { markers += 1 }
    #expect(markers >= 1)
    #expect(try replay(device).records.count == count + markers)
    #expect(device.withState { $0.writeCount } == writes + markers)

    let position = ring.cut()
    #expect(try ring.append(map(1)) == nil)
    ring.advanceTail(to: position)
    #expect(ring.usedByteCount == 0)
    let record = try #require(try ring.append(map(4096)))
    #expect(try replay(device, from: position).records == [record])
  }

  @Test(arguments: [48, 72, 88, 96, 4096, 16464])
  func `a record goes round the end from every place near it`(byteCount: Int) throws {
    let blank = [UInt8](repeating: 0xA5, count: deviceByteCount)
    for head in stride(from: 65536 - 8192, through: 65536, by: 16) {
      // One record fills up to the head.
      let start = (head - 96) & ~4095
      let tail = JournalPosition(offset: UInt64(start), sequence: 9)
      device.withState { $0.bytes = blank }
      let ring = try makeRing(device, at: tail.offset, sequence: 9)
      var records = [try ring.append(map((head - start - 80) / 4))]
      let change: JournalRecord.Change =
        switch byteCount {
        case 48: .commitMarker
        case 72: .unmap(inode: 1, logical: 2..<3)
        default: map((byteCount - 80) / 4)
        }
      records.append(try ring.append(change))
      if head % 32 == 0 { _ = ring.cut() }
      records.append(try ring.append(.unmap(inode: 1, logical: 5..<9)))
      let (found, end) = try replay(device, from: tail)
      try check(found == records.compactMap(\.self) && found.count == 3, "head \(head): \(found.count) records")
      try check(end.usedByteCount == ring.usedByteCount, "head \(head): \(end) and \(ring.usedByteCount)")
      device.withState { $0.unsynced = [] }
      try check(
        device.withState { isUntouchedOutside($0.bytes) }, "head \(head): something was written outside the ring")
    }
  }

  /// Whether the bytes before and behind the ring are all 0xA5.
  private func isUntouchedOutside(_ bytes: [UInt8]) -> Bool {
    bytes.withUnsafeBytes { all in
      guard let base = all.baseAddress else { return false }
      return all[0] == 0xA5 && memcmp(base, base + 1, 4095) == 0 && memcmp(base, base + 4096 + 65536, 4096) == 0
    }
  }

  @Test func `laps of records come back, whatever the sizes and cuts`() throws {
    try withSeededGenerator { generator in
      let ring = try makeRing(device, at: 61440, sequence: 1000)
      var tail = JournalPosition(offset: 61440, sequence: 1000)
      var live: [JournalRecord] = []
      var cuts: [JournalPosition] = []
      var laps: UInt64 = 0
      for step in 0..<2000 {
        switch generator.number(below: 12) {
        case 0: cuts.append(ring.cut())
        case 1, 2:
          guard let index = cuts.indices.randomElement(using: &generator) else { continue }
          if cuts[index].offset < tail.offset { laps += 1 }
          tail = cuts[index]
          cuts.removeFirst(index + 1)
          ring.advanceTail(to: tail)
          live.removeAll { $0.sequence < tail.sequence }
        default:
          let sizes = [1, 2, 3, 30, 500, 1000, generator.number(below: 4096) + 1]
          let change =
            // Each with other bytes at its end: where those of an earlier one were the same, all of a record could be there after a write
            // that stopped short of them, and that is final.
            generator.oneIn(4)
            ? .unmap(inode: 1, logical: 2..<UInt64(step) + 3)
            : map(sizes[generator.number(below: sizes.count)], seed: UInt64(step + 1))
          // The host has no room now and then.
          let room = generator.oneIn(5) ? generator.number(below: byteCount(of: change) - 8) : nil
          device.withState { $0.roomOfNextWrite = room }
          do {
            if let record = try ring.append(change) { live.append(record) } else { cuts.append(ring.cut()) }
          } catch let error as ExtentFSError where room != nil && error.isLackOfSpace {}
          device.withState { $0.roomOfNextWrite = nil }
        }
        if step % 8 == 0 {
          let (found, end) = try replay(device, from: tail)
          try check(found == live, "step \(step): \(found.count) records instead of \(live.count)")
          try check(end.lastSequence == ring.lastSequence, "step \(step): ends at \(end.lastSequence)")
          try check(try lostDurableSequence(device, from: tail) == nil, "step \(step): something seems lost")
        }
      }
      try check(laps > 5, "only \(laps) laps")
    }
  }

  @Test func `a commit is unrecorded until a record says it, or a checkpoint has merged it`() throws {
    let ring = try makeRing(device)
    let commits = GroupCommit(device: device, ring: ring)
    #expect(!ring.hasUnrecordedCommit)
    _ = try ring.append(map(1))
    #expect(!ring.hasUnrecordedCommit)
    try commits.flush()
    #expect(ring.hasUnrecordedCommit)
    _ = try ring.append(.commitMarker)
    #expect(!ring.hasUnrecordedCommit)
    #expect(try replay(device).end.durableSequence == 1)
    // The marker itself is nothing to make durable, nor to tell of.
    let syncCount = device.withState { $0.syncCount }
    try commits.flush()
    #expect(device.withState { $0.syncCount } == syncCount)
    try commits.syncAll()
    #expect(!ring.hasUnrecordedCommit)
    _ = try ring.append(map(1))
    try commits.flush()
    #expect(ring.hasUnrecordedCommit)
    _ = try ring.append(map(1))
    #expect(!ring.hasUnrecordedCommit)
    try commits.flush()
    ring.advanceTail(to: ring.cut())
    #expect(!ring.hasUnrecordedCommit)
  }

  @Test func `a failed write is final`() throws {
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    _ = try ring.append(map(1))
    device.withState { $0.failsWrites = true }
    #expect(isDeviceFailure(.write, thrownCode { _ = try ring.append(map(1)) }))
    device.withState { $0.failsWrites = false }
    #expect(thrownCode { _ = try ring.append(map(1)) } == .failed)
    #expect(thrownCode { _ = try ring.append(.commitMarker) } == .failed)
    #expect(thrownCode { try commit.flush() } == .failed)
    #expect(thrownCode { try commit.syncAll() } == .failed)
    #expect(device.withState { ($0.writeCount, $0.syncCount) } == (1, 0))
    #expect(try replay(device).records.count == 1)
  }

  /// Whatever comes next: another record, a longer one that goes round the end, a flush or a checkpoint's cut before it.
  @Test func `a write that finds no room has done nothing, and the next record takes its number`() throws {
    let ring = try makeRing(device, at: 61440, sequence: 7)
    let commit = GroupCommit(device: device, ring: ring)
    var tail = JournalPosition(offset: 61440, sequence: 7)
    for (room, size, next) in [
      (0, 1, 1), (47, 1, 1), (80, 1, 3), (100, 300, 1), (87, 2, 1000), (4096, 2000, 1), (90, 3, 2),
    ] {
      var live: [JournalRecord] = []
      for between in 0..<3 {
        device.withState { $0.roomOfNextWrite = room }
        #expect(isOutOfRoom(thrownCode { _ = try ring.append(map(size, seed: 99)) }), "\(room), \(size)")
        #expect(try replay(device, from: tail).records == live)
        if between == 1 { try commit.flush() }
        if between == 2 { _ = ring.cut() }
        live.append(try #require(try ring.append(map(next, seed: UInt64(live.count + 1)))))
        #expect(try replay(device, from: tail).records == live)
      }
      try commit.flush()
      #expect(ring.durableSequence == ring.lastSequence)
      tail = ring.cut()
      ring.advanceTail(to: tail)
    }
  }

  @Test func `a whole record that was refused for lack of room is the end`() throws {
    let ring = try makeRing(device)
    device.withState { $0.roomOfNextWrite = 88 }
    #expect(isOutOfRoom(thrownCode { _ = try ring.append(map(1)) }))
    #expect(thrownCode { _ = try ring.append(map(1)) } == .failed)
  }

  @Test func `a record that found no room and cannot be looked at is the end`() throws {
    let ring = try makeRing(device)
    device.withState { ($0.roomOfNextWrite, $0.failsReads) = (0, true) }
    #expect(isOutOfRoom(thrownCode { _ = try ring.append(map(1)) }))
    device.withState { $0.failsReads = false }
    #expect(thrownCode { _ = try ring.append(map(1)) } == .failed)
  }

  @Test(
    arguments: [
      (4096..<4096 + 65536, 65536, 1), (4096..<4096 + 65536, 100, 1), (4096..<4096 + 65536, .max, 1),
      (4096..<4096 + 65536, 0, 0), (4096..<4096 + 65536, 0, .max), (4096..<4096 + 65536, 0, 1 << 63),
      (4097..<4097 + 65536, 0, 1), (4096..<4096 + 61440, 0, 1), (4096..<4096, 0, 1), (4096..<4096 + 73728, 0, 1),
      (0..<(.max), 0, 1), (4096..<4096 + 65537, 0, 1),
    ] as [(Range<UInt64>, UInt64, UInt64)])
  func `a ring that cannot be is refused`(region: Range<UInt64>, offset: UInt64, sequence: UInt64) {
    let start = JournalPosition(offset: offset, sequence: sequence)
    #expect(
      thrownCode {
        _ = try TestRing(
          device: device, region: region, identity: testIdentity, start: start, health: EngineHealth())
      } == .damaged)
    #expect(
      thrownCode { _ = try JournalReplay(device: device, region: region, identity: testIdentity, tail: start) }
        == .damaged)
  }
}

@Suite struct JournalRingConcurrencyTests {
  @Test func `records of many threads come back in the order of their numbers`() throws {
    let device = JournalTestDevice(byteCount: deviceByteCount)
    let ring = try makeRing(device)
    let appended = Locked<[UInt64: UInt64]>([:])
    try inThreads(4) { index in
      for round in 0..<100 {
        let inode = UInt64(index * 1000 + round)
        guard let sequence = try ring.appendUnmap(inode: inode, logical: 1..<2) else { throw CheckFailure("full") }
        appended.withLock { $0[sequence] = inode }
        _ = ring.usedByteCount
        if round == 47 { _ = ring.cut() }
      }
    }
    let found = try replay(device).records
    #expect(found.map(\.sequence) == Array(1...400))
    let expected = appended.withLock { $0 }
    for record in found {
      try check(record.change == .unmap(inode: expected[record.sequence] ?? 0, logical: 1..<2), "\(record)")
    }
  }
}
