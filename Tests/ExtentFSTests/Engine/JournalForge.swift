import Checksums
import Devices
import ExtentFS
import LacunaTestSupport

/// Makes a journal of records that nobody appended, each with the right checksum, store, epoch and number.
struct JournalForge {
  private let superblock: Superblock
  private let ringByteCount: Int
  private var ring: [UInt8]
  private var offset: Int
  /// The number of the next record.
  private(set) var sequence: UInt64

  /// An empty journal for the store of `seals`.
  init(_ seals: Seals) {
    superblock = seals.superblock
    ringByteCount = Int(superblock.geometry.journalByteCount)
    ring = [UInt8](repeating: 0, count: ringByteCount)
    offset = Int(superblock.journalTailOffset)
    sequence = superblock.journalTailSequence
  }

  /// Appends a record whose body is `body`, filled up to a multiple of eight bytes; false where the ring has no room for it
  /// before its end.
  @discardableResult
  mutating func append(kind: UInt8, durable: UInt64, body: [UInt8]) -> Bool {
    let count = (JournalFormat.headerByteCount + body.count + 7) & ~7
    guard offset + count <= ringByteCount else { return false }
    var record = [UInt8](repeating: 0, count: count)
    func put(_ number: UInt64, at place: Int) {
      for byte in 0..<8 { record[place + byte] = UInt8(truncatingIfNeeded: number >> UInt64(8 * byte)) }
    }
    put(superblock.uuid.tag, at: 8)
    put(superblock.journalEpoch, at: 16)
    put(sequence, at: 24)
    put(durable, at: 32)
    record[40] = kind
    record.replaceSubrange(JournalFormat.headerByteCount..<JournalFormat.headerByteCount + body.count, with: body)
    put(UInt64(count) << 32, at: 0)
    let sum = record[4...].withUnsafeBytes { CRC32C.checksum($0) }
    put(UInt64(count) << 32 | UInt64(sum), at: 0)
    ring.replaceSubrange(offset..<offset + count, with: record)
    offset += count
    sequence += 1
    return true
  }

  /// Goes on at the next block of 4096 bytes, as the writer does after a sync.
  mutating func closeBlock() { offset = (offset + 4095) / 4096 * 4096 }

  /// Puts the journal in place of the one on `device`.
  func write(to device: CrashDevice) throws { try device.write(ring, at: StoreGeometry.journalOffset) }

  /// Appends a record that may be right, nearly right or nonsense; returns what.
  mutating func appendRandom(_ generator: inout SeededGenerator) -> String {
    func number(below bound: UInt64, _ generator: inout SeededGenerator) -> UInt64 {
      generator.oneIn(12)
        ? HostileStore.boundaries[generator.number(below: HostileStore.boundaries.count)]
        : generator.number(below: bound)
    }
    var body: [UInt8] = []
    func put(_ number: UInt64) { withUnsafeBytes(of: number.littleEndian) { body += $0 } }
    if generator.oneIn(5) { closeBlock() }
    let kind = generator.oneIn(20) ? UInt8(generator.number(below: 8)) : [1, 1, 1, 2, 3, 5][generator.number(below: 6)]
    let durable = generator.oneIn(2) ? sequence - 1 : number(below: sequence, &generator)
    let inode = 1 + number(below: 4, &generator) % .max
    let logical = number(below: 210, &generator)
    let count = generator.oneIn(30) ? generator.number(below: 5000) : 1 + generator.number(below: 12)
    var physical: UInt64 = 0
    switch kind {
    case 1:
      physical = number(below: 920, &generator)
      put(inode)
      put(logical)
      put(physical)
      put(generator.oneIn(20) ? number(below: 5000, &generator) : UInt64(count))
      for _ in 0..<count { withUnsafeBytes(of: UInt32(truncatingIfNeeded: generator.next())) { body += $0 } }
    case 5: break
    default:
      put(inode)
      put(logical)
      put(generator.oneIn(4) ? number(below: 300, &generator) : UInt64(count))
    }
    append(kind: kind, durable: durable, body: body)
    return "kind \(kind), durable \(durable), inode \(inode), \(count) blocks from \(logical) at \(physical)"
  }
}
