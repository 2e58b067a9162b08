import Bytes
import ExtentFS
import LacunaTestSupport
import Testing

@Suite struct JournalReplayTests {
  let device = JournalTestDevice(byteCount: deviceByteCount)
  let tail = JournalPosition(offset: 0, sequence: 1)

  @Test func `an empty journal has no records`() throws {
    let (records, end) = try replay(device)
    #expect(records.isEmpty)
    #expect(end == JournalEnd(lastSequence: 0, durableSequence: 0, usedByteCount: 0))
  }

  @Test func `records of another store, another epoch, an earlier or later number are none`() throws {
    _ = try makeRing(device).append(map(1))
    for identity in [
      JournalIdentity(storeTag: testIdentity.storeTag + 1, epoch: testIdentity.epoch),
      JournalIdentity(storeTag: testIdentity.storeTag, epoch: testIdentity.epoch + 1),
      JournalIdentity(storeTag: testIdentity.storeTag, epoch: testIdentity.epoch - 1),
    ] {
      #expect(try replay(device, identity).records.isEmpty)
    }
    #expect(try replay(device, from: JournalPosition(offset: 0, sequence: 2)).records.isEmpty)
    let later = JournalTestDevice(byteCount: deviceByteCount)
    _ = try makeRing(later, sequence: 5).append(map(1))
    #expect(try replay(later, from: JournalPosition(offset: 0, sequence: 4)).records.isEmpty)
  }

  @Test func `a record that is missing, repeated or out of place ends the journal`() throws {
    let ring = try makeRing(device)
    for index in 1...5 { _ = try ring.append(map(1, seed: UInt64(index))) }
    let good = device.bytes
    func piece(_ index: Int) -> ArraySlice<UInt8> { good[4096 + 88 * index..<4096 + 88 * (index + 1)] }
    // What lies at each of the five places, and how many records are then there.
    for (places, count) in [
      ([0, 1, 2, 3, 4], 5), ([0, 1, 3, 2, 4], 2), ([1, 0, 2, 3, 4], 0), ([0, 0, 2, 3, 4], 1), ([0, 1, 2, 4, 4], 3),
      ([0, 2, 3, 4, 4], 1), ([0, 1, 1, 2, 3], 2),
    ] {
      let bytes = Array(good[..<4096]) + places.flatMap(piece) + good[(4096 + 440)...]
      #expect(try replay(JournalTestDevice(bytes: bytes)).records.count == count, "\(places)")
    }
  }

  @Test func `records of an earlier lap are not replayed`() throws {
    let ring = try makeRing(device)
    // Equal records, so that those of each lap lie where those of the one before did.
    var tail = tail
    for _ in 0..<5 {
      while try ring.append(map(1000)) != nil {}
      let next = ring.cut()
      try check(try replay(device, from: tail).end.lastSequence == ring.lastSequence, "the lap is whole")
      tail = next
      ring.advanceTail(to: next)
      try check(try replay(device, from: tail).records.isEmpty, "the tail moved on")
      let record = try #require(try ring.append(map(1000)))
      try check(try replay(device, from: tail).records == [record], "one record of the new lap")
    }
  }

  @Test(arguments: [1, 100, 500, 4096]) func `a record torn at any sector is not replayed`(blockCount: Int) throws {
    let ring = try makeRing(device)
    let first = try #require(try ring.append(map(100, seed: 3)))
    let before = device.bytes
    let second = try #require(try ring.append(map(blockCount, seed: 4)))
    let third = try #require(try ring.append(map(1, seed: 5)))
    let after = device.bytes
    let sectors = 0..<(Int(ring.usedByteCount) + 511) / 512
    func expect(_ bytes: [UInt8], _ what: String) throws {
      let found = try replay(JournalTestDevice(bytes: bytes)).records
      let isPrefix = found == [first, second, third] || found == [first, second] || found == [first] || found.isEmpty
      try check(isPrefix, "\(what): \(found.map(\.sequence))")
      if bytes[4096..<4096 + 480] == after[4096..<4096 + 480] {
        try check(!found.isEmpty, "\(what): the first is gone")
      }
    }
    for cut in sectors {
      let end = 4096 + 512 * cut
      try expect(Array(after[..<end]) + before[end...], "only the sectors before \(cut)")
      try expect(Array(before[..<end]) + after[end...], "only the sectors from \(cut) on")
      var bytes = after
      bytes.replaceSubrange(end..<end + 512, with: before[end..<end + 512])
      try expect(bytes, "all but sector \(cut)")
      bytes.replaceSubrange(end..<end + 512, with: repeatElement(0x5A, count: 512))
      try expect(bytes, "garbage in sector \(cut)")
    }
  }

  @Test func `after a power cut the durable records are there, then some of the others in order`() throws {
    try withSeededGenerator { generator in
      var undurableSurvivors = 0
      for _ in 0..<20 {
        let device = JournalTestDevice(byteCount: deviceByteCount)
        let ring = try makeRing(device)
        let commit = GroupCommit(device: device, ring: ring)
        var tail = tail
        var live: [JournalRecord] = []
        for step in 0..<generator.number(below: 120) {
          switch generator.number(below: 10) {
          case 0: try commit.flush()
          case 1 where generator.oneIn(3): _ = ring.cut()
          default:
            let count = generator.oneIn(6) ? 1 + generator.number(below: 4000) : 1 + generator.number(below: 40)
            if generator.oneIn(4) {
              device.withState { $0.roomOfNextWrite = generator.number(below: byteCount(of: map(count)) - 8) }
              do { _ = try ring.append(map(count, seed: 999)) } catch let error as ExtentFSError
                where error.isLackOfSpace
              {}
              device.withState { $0.roomOfNextWrite = nil }
            }
            if let record = try ring.append(map(count, seed: UInt64(step + 1))) {
              live.append(record)
            } else {
              tail = ring.cut()
              try commit.syncAll()
              ring.advanceTail(to: tail)
              live = []
            }
          }
        }
        let durable = ring.durableSequence
        for _ in 0..<10 {
          let picture = device.withState { Self.picture($0, &generator) }
          let medium = JournalTestDevice(bytes: picture)
          let (found, end) = try replay(medium, from: tail)
          try check(found == Array(live.prefix(found.count)), "\(found.map(\.sequence)) is no beginning")
          try check(end.lastSequence >= durable || tail.sequence > durable, "\(end) lacks some up to \(durable)")
          try check(try lostDurableSequence(medium, from: tail) == nil, "a power cut passes for a loss")
          if end.lastSequence > durable, !found.isEmpty { undurableSurvivors += 1 }
        }
      }
      try check(undurableSurvivors > 0, "the pictures are too dark")
    }
  }

  /// What the medium may hold after a power cut now: each sector written since the last sync is old, new or garbage.
  private static func picture(_ state: JournalTestDevice.State, _ generator: inout SeededGenerator) -> [UInt8] {
    var bytes = state.durable
    let garbage = generator.oneIn(2)
    let survival = 1 + generator.number(below: 20)
    for write in state.unsynced {
      var start = 0
      while start < write.bytes.count {
        let end = min(start + 512 - (write.offset + start) % 512, write.bytes.count)
        let target = write.offset + start
        if !generator.oneIn(survival) {
          bytes.replaceSubrange(target..<target + end - start, with: write.bytes[start..<end])
        } else if garbage {
          // A torn sector loses what it held before as well.
          let sector = target & ~511
          bytes.replaceSubrange(sector..<sector + 512, with: generator.nonZeroBytes(512))
        }
        start = end
      }
    }
    return bytes
  }

  @Test func `a durable record that decayed is noticed by those after it`() throws {
    let ring = try makeRing(device)
    let commit = GroupCommit(device: device, ring: ring)
    for _ in 0..<3 { _ = try ring.append(map(1)) }
    try commit.flush()
    _ = try ring.append(map(1))
    #expect(try lostDurableSequence(device) == nil)
    device.withState { $0.bytes[4096 + 88 + 30] ^= 1 }
    #expect(try replay(device).end.lastSequence == 1)
    #expect(try lostDurableSequence(device) == 3)
  }

  @Test func `the next life begins above every number that may have been used`() throws {
    let ring = try makeRing(device, at: 4096, sequence: 10)
    while try ring.append(.commitMarker) != nil {}
    let replay = try JournalReplay(
      device: device, region: ringRegion, identity: testIdentity, tail: JournalPosition(offset: 4096, sequence: 10))
    #expect(replay.nextStart.sequence > ring.lastSequence)
    #expect(replay.nextStart.offset == 0)
  }

  @Test func `a ring that cannot be read is an error, not an end`() throws {
    _ = try makeRing(device).append(map(1))
    device.withState { $0.failsReads = true }
    #expect(isDeviceFailure(.read, thrownCode { _ = try replay(device) }))
  }

  @Test func `the reader's error comes out`() throws {
    _ = try makeRing(device).append(map(1))
    let replay = try JournalReplay(device: device, region: ringRegion, identity: testIdentity, tail: tail)
    #expect(
      thrownCode {
        _ = try replay.forEach { _ throws(ExtentFSError) in throw ExtentFSError(.invalidArgument, "enough") }
      } == .invalidArgument)
  }
}
