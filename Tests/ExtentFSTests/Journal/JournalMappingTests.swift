import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import SystemPackage
import Testing

@Suite struct JournalMappingTests {
  /// Runs `body` with a ring that goes through a mapping of a file.
  private func withRing(
    _ body: (JournalRing, FileDevice, _ path: String) throws -> Void
  ) throws {
    try withTestDirectory { directory in
      let path = directory + "/ring"
      let device = try FileDevice(creating: FilePath(path), byteCount: UInt64(deviceByteCount))
      try #require(device.map(ringRegion) != nil)
      let ring = try JournalRing(
        device: device, region: ringRegion, identity: testIdentity, start: JournalPosition(offset: 0, sequence: 1),
        health: EngineHealth())
      try body(ring, device, path)
    }
  }

  private func records(_ device: FileDevice, from tail: JournalPosition) throws -> [JournalRecord] {
    var records: [JournalRecord] = []
    _ = try JournalReplay(device: device, region: ringRegion, identity: testIdentity, tail: tail).forEach {
      records.append($0)
    }
    return records
  }

  @Test func `laps of records through a mapping are in the file at once`() throws {
    try withSeededGenerator { generator in
      try withRing { ring, device, _ in
        var tail = JournalPosition(offset: 0, sequence: 1)
        var live: [JournalRecord] = []
        let commits = GroupCommit(device: device, ring: ring)
        var laps = 0
        for step in 0..<1500 {
          let sizes = [1, 2, 30, 1000, generator.number(below: 4096) + 1]
          if let record = try ring.append(map(sizes[generator.number(below: sizes.count)], seed: UInt64(step))) {
            live.append(record)
          } else {
            let cut = ring.cut()
            if cut.offset < tail.offset { laps += 1 }
            tail = cut
            ring.advanceTail(to: tail)
            live = []
          }
          if generator.oneIn(20) { try commits.flush() }
          if step % 16 == 0 {
            try check(try records(device, from: tail) == live, "step \(step): \(live.count) records were appended")
          }
        }
        try check(laps > 5, "only \(laps) laps")
      }
    }
  }

  @Test func `a ring whose mapping fails goes on with writes`() throws {
    try withRing { ring, device, path in
      let first = try #require(try ring.append(map(1)))
      try #require(truncate(path, 8192) == 0)
      // It goes on beyond what is left of the file, where a store would end the process.
      let second = try #require(try ring.append(map(2000)))
      let third = try #require(try ring.append(map(1)))
      try #require(truncate(path, off_t(deviceByteCount)) == 0)
      #expect(try records(device, from: JournalPosition(offset: 0, sequence: 1)) == [first, second, third])
    }
  }
}
