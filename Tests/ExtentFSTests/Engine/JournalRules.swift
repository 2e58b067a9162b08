import Checksums
import Devices
import ExtentFS
import LacunaTestSupport

/// The order in which the engine must write its journal, checked over a recording: what `OrderRules` cannot see.
///
/// It reads records as docs/format.md has them, without the engine's help.
///
/// 1. A sequence number is used once, and numbers only rise, over all processes and epochs (rule R5).
/// 2. The data of a record is in the kernel's hands before the record is (so that a dying process loses nothing).
/// 3. A record says that earlier ones are durable only where a completed sync covered them (rule R2).
/// 4. No record from the tail of the durable superblock on is written over, and no block that one of them maps is written
///    or discarded (rule R1).
struct JournalRules {
  private struct Record {
    let call: Int
    let epoch: UInt64
    let sequence: UInt64
    let bytes: Range<UInt64>
    /// The blocks that it maps, in bytes; empty for other kinds.
    let data: Range<UInt64>
  }

  private struct Commit {
    let call: Int
    let superblock: Superblock
  }

  private let journal: Range<UInt64>
  private let mayBeShort: Bool
  /// As after the calls so far.
  private let device: CrashDevice
  private var records: [Record] = []
  private var commits: [Commit] = []
  private var durable: Superblock?
  private var lastSequence: UInt64 = 0
  /// Calls below it are durable.
  private var settled = 0

  /// Goes through a recording of a store whose journal is in `journal`.
  ///
  /// - Throws: `CheckFailure` for the first call out of order.
  ///
  /// - Parameter mayBeShort: whether there may be parts of records, for all of which there was no room.
  static func check(_ log: CrashLog, journal: Range<UInt64>, mayBeShort: Bool = false) throws {
    var rules = JournalRules(journal: journal, start: log.start, mayBeShort: mayBeShort)
    for (number, call) in log.calls.enumerated() {
      do { try rules.take(call, number) } catch let failure as CheckFailure {
        throw CheckFailure("call \(number) (\(call)): \(failure)")
      }
    }
  }

  private init(journal: Range<UInt64>, start: MediumImage, mayBeShort: Bool) {
    self.journal = journal
    self.mayBeShort = mayBeShort
    device = CrashDevice(start, maximumByteCount: .max, records: false)
  }

  private mutating func take(_ call: CrashDevice.Call, _ number: Int) throws {
    if let range = call.changedRange { try checkOverlaps(range) }
    switch call {
    case .write(let offset, let bytes):
      try bytes.withUnsafeBytes { try device.write($0, at: offset) }
      if journal.contains(offset), durable == nil, commits.isEmpty {
        // The ring of a new store, before any superblock.
        guard bytes.allSatisfy({ $0 == 0 }) else { throw CheckFailure("it is a record of no store") }
      } else if journal.contains(offset) {
        try bytes.withUnsafeBytes { try takeRecord($0, at: offset, number) }
      } else if bytes.count == Superblock.encodedByteCount, Self.isSlot(offset) {
        commits.append(Commit(call: number, superblock: try Superblock(decoding: bytes.span.bytes)))
      }
    case .sync(let covers):
      settled = max(settled, covers)
      takeDurableCommits()
    case .discard(let range): try device.discard(range)
    case .grow(_, let to): try device.grow(to: to)
    case .drop: break
    }
  }

  private static func isSlot(_ offset: UInt64) -> Bool {
    (0..<StoreGeometry.superblockSlotCount).contains { StoreGeometry.superblockOffset(ofSlot: $0) == offset }
  }

  /// Records before the tail of the superblock that is durable now are no longer live; nor are those of other epochs.
  private mutating func takeDurableCommits() {
    guard let newest = commits.last(where: { $0.call < settled })?.superblock else { return }
    durable = newest
    records.removeAll { $0.epoch < newest.journalEpoch || $0.sequence < newest.journalTailSequence }
    commits.removeAll { $0.call < settled }
  }

  private func checkOverlaps(_ range: Range<UInt64>) throws {
    for record in records {
      if record.bytes.overlaps(range) { throw CheckFailure("it touches record \(record.sequence), which is live") }
      if record.data.overlaps(range) {
        throw CheckFailure("it touches data of record \(record.sequence), which is live")
      }
    }
  }

  private mutating func takeRecord(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, _ number: Int) throws {
    func field(_ place: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self) }
    guard bytes.count >= 48 else {
      if mayBeShort { return }
      throw CheckFailure("it is too short for a record")
    }
    let length = Int(field(0) >> 32)
    if mayBeShort, length > bytes.count { return }
    guard length >= 48, length <= bytes.count,
      CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[4..<length])) == UInt32(truncatingIfNeeded: field(0))
    else { throw CheckFailure("it is no record") }
    let (epoch, sequence, durableSequence) = (field(16), field(24), field(32))
    guard sequence > lastSequence else {
      throw CheckFailure("its number is \(sequence), and one was \(lastSequence) before")
    }
    lastSequence = sequence
    let promised = records.last { $0.epoch == epoch && $0.sequence <= durableSequence }
    if let promised, promised.call >= settled {
      throw CheckFailure("it says that record \(promised.sequence) is durable, and no sync has covered that")
    }
    let data = bytes[40] == 1 ? try checkData(bytes, field(64), Int(field(72) & 0xFFFF_FFFF)) : 0..<0
    records.append(
      Record(call: number, epoch: epoch, sequence: sequence, bytes: offset..<offset + UInt64(length), data: data))
  }

  /// Compares the checksums of a map record with the blocks that it maps.
  private func checkData(_ record: UnsafeRawBufferPointer, _ block: UInt64, _ count: Int) throws -> Range<UInt64> {
    let size = UInt64(CrashShape.blockByteCount)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(size), alignment: 16)
    defer { memory.deallocate() }
    for index in 0..<count {
      try device.read(into: memory, at: (block + UInt64(index)) * size)
      let expected = record.loadUnaligned(fromByteOffset: 80 + 4 * index, as: UInt32.self)
      guard CRC32C.checksum(UnsafeRawBufferPointer(memory)) == expected else {
        throw CheckFailure("the data of block \(block + UInt64(index)) is not what the record says")
      }
    }
    return block * size..<(block + UInt64(count)) * size
  }
}
