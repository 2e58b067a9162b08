import Checksums
import ExtentFS
import LacunaTestSupport
import Testing

@Suite struct JournalFormatTests {
  static let changes: [JournalRecord.Change] = [
    map(1), map(2), map(3), map(4096), .unmap(inode: 2, logical: 5..<6),
    .unmap(inode: .max, logical: 0..<UInt64(Int64.max)), .reserve(inode: 0, logical: 9..<1000), .commitMarker,
  ]

  /// The bytes of the journal after the given changes.
  private func bytes(_ changes: JournalRecord.Change...) throws -> [UInt8] {
    let device = JournalTestDevice(byteCount: deviceByteCount)
    let ring = try makeRing(device)
    for change in changes { _ = try #require(try ring.append(change)) }
    return device.bytes
  }

  @Test(arguments: changes) func `a record comes back as it was`(change: JournalRecord.Change) throws {
    let device = JournalTestDevice(byteCount: deviceByteCount)
    let record = try #require(try makeRing(device).append(change))
    #expect(record == JournalRecord(sequence: 1, durableSequence: 0, change: change))
    #expect(try replay(device).records == [record])
  }

  @Test func `a map record has these bytes`() throws {
    let change = JournalRecord.Change.map(
      inode: 0x0102_0304_0506_0708, logical: 0x1112_1314_1516_1718, physical: 0x2122_2324_2526_2728,
      checksums: [0xAABB_CCDD])
    let found = try bytes(change)[4096..<4096 + 88]
    let body: [UInt8] =
      [88, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 5, 0, 0, 0, 0, 0, 0, 0]
      + [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]
      + [8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11]
      + [0x28, 0x27, 0x26, 0x25, 0x24, 0x23, 0x22, 0x21, 1, 0, 0, 0, 0, 0, 0, 0]
      + [0xDD, 0xCC, 0xBB, 0xAA, 0, 0, 0, 0]
    #expect(Array(found.dropFirst(4)) == body)
    let checksum = body.withUnsafeBytes { CRC32C.checksum($0) }
    #expect(Array(found.prefix(4)) == (0..<4).map { UInt8(truncatingIfNeeded: checksum >> (8 * $0)) })
  }

  @Test func `unmap, reserve and marker records have these bytes`() throws {
    let all = try bytes(
      .unmap(inode: 2, logical: 3..<7), .reserve(inode: 8, logical: 9..<10), .commitMarker)
    func word(_ offset: Int) -> UInt64 { (0..<8).reduce(0) { $0 | UInt64(all[4096 + offset + $1]) << UInt64(8 * $1) } }
    // Lengths, in the upper half of the first word.
    #expect([0, 72, 144].map { word($0) >> 32 } == [72, 72, 48])
    #expect([24, 72 + 24, 144 + 24].map(word) == [1, 2, 3])
    #expect([40, 72 + 40, 144 + 40].map(word) == [2, 3, 5])
    #expect([48, 56, 64].map(word) == [2, 3, 4])
    #expect([120, 128, 136].map(word) == [8, 9, 1])
  }

  @Test(arguments: [
    map(1), map(4), .unmap(inode: 2, logical: 5..<6), .reserve(inode: 2, logical: 5..<6), .commitMarker,
  ])
  func `every flipped bit is noticed`(change: JournalRecord.Change) throws {
    let good = try bytes(change)
    let device = JournalTestDevice(bytes: good)
    let byteCount = try replay(device).end.usedByteCount
    for bit in 0..<8 * Int(byteCount) {
      device.withState { $0.bytes[4096 + bit / 8] ^= 1 << UInt8(bit % 8) }
      try check(try replay(device).records.isEmpty, "bit \(bit) of \(change) is flipped, and nobody says so")
      device.withState { $0.bytes[4096 + bit / 8] ^= 1 << UInt8(bit % 8) }
    }
  }

  /// A record of `words` behind its header, with a right checksum.
  private func sealed(kind: UInt64, byteCount: Int, durable: UInt64 = 0, _ words: [UInt64]) -> [UInt8] {
    var numbers = [0, testIdentity.storeTag, testIdentity.epoch, 1, durable, kind] + words
    while numbers.count < max(6, min(byteCount, 8192) / 8) { numbers.append(0) }
    var bytes = numbers.flatMap { number in (0..<8).map { UInt8(truncatingIfNeeded: number >> UInt64(8 * $0)) } }
    for index in 0..<4 { bytes[4 + index] = UInt8(truncatingIfNeeded: byteCount >> (8 * index)) }
    let covered = min(max(byteCount, 4), bytes.count)
    let checksum = bytes[4..<covered].withUnsafeBytes { CRC32C.checksum($0) }
    for index in 0..<4 { bytes[index] = UInt8(truncatingIfNeeded: checksum >> UInt32(8 * index)) }
    var all = [UInt8](repeating: 0, count: deviceByteCount)
    all.replaceSubrange(4096..<4096 + bytes.count, with: bytes)
    return all
  }

  @Test func `a record made by hand is accepted`() throws {
    let device = JournalTestDevice(bytes: sealed(kind: 2, byteCount: 72, [7, 8, 9]))
    #expect(try replay(device).records.map(\.change) == [.unmap(inode: 7, logical: 8..<17)])
  }

  @Test(
    arguments: [
      // Kinds that are none.
      (0, 48, 0, []), (4, 48, 0, []), (6, 48, 0, []), (255, 48, 0, []),
      // Lengths that are not their kind's.
      (5, 56, 0, []), (2, 48, 0, []), (2, 80, 0, [1, 1, 1]), (1, 48, 0, []), (1, 80, 0, [1, 1, 1, 0]),
      (1, 88, 0, [1, 1, 1, 3]), (1, 96, 0, [1, 1, 1, 2]),
      // Counts.
      (1, 88, 0, [1, 1, 1, 0]), (1, 88, 0, [1, 1, 1, 1 << 32]), (1, 88, 0, [1, 1, 1, .max]),
      (1, 88, 0, [1, 1, 1, 4097]),
      (2, 72, 0, [1, 1, 0]), (3, 72, 0, [1, 1, 0]),
      // Ranges past the end of all numbers, and the null block.
      (2, 72, 0, [1, .max, 1]), (2, 72, 0, [1, 1, .max]), (3, 72, 0, [1, 1 << 63, 1 << 63]),
      (1, 88, 0, [1, .max, 1, 1]), (1, 88, 0, [1, 1, .max, 1]), (1, 88, 0, [1, 1, 0, 1]),
      // A record cannot know of a sync after it.
      (5, 48, 1, []), (5, 48, .max, []),
    ] as [(UInt64, Int, UInt64, [UInt64])])
  func `a sealed record that cannot be is damage`(kind: UInt64, byteCount: Int, durable: UInt64, words: [UInt64]) {
    let device = JournalTestDevice(bytes: sealed(kind: kind, byteCount: byteCount, durable: durable, words))
    #expect(thrownCode { _ = try replay(device) } == .damaged)
  }

  @Test(arguments: [0, 4, 40, 44, 47, 49, 52, 65540, 0x7FFF_FFF8, 0xFFFF_FFF8])
  func `a length that no record has ends the journal`(byteCount: Int) throws {
    #expect(try replay(JournalTestDevice(bytes: sealed(kind: 5, byteCount: byteCount, []))).records.isEmpty)
  }

  @Test func `arbitrary bytes give an answer`() throws {
    try withSeededGenerator { generator in
      let good = try bytes(map(1), map(5), .commitMarker)
      for _ in 0..<2000 {
        var bad = good
        for _ in 0...generator.number(below: 4) {
          bad[4096 + generator.number(below: 300)] = UInt8(truncatingIfNeeded: generator.next())
        }
        _ = try replay(JournalTestDevice(bytes: bad))
      }
    }
  }
}
