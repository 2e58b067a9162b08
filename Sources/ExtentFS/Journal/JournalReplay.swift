package import Devices

/// Where a journal ended, as found by reading it.
package struct JournalEnd: Sendable, Equatable {
  /// The number of the last record; the one before the tail's where there is none.
  package var lastSequence: UInt64
  /// The greatest durable sequence number that any record told; the one before the tail's where none told more.
  ///
  /// Data of records up to this one was durable. That of later records is to be verified against their checksums.
  package var durableSequence: UInt64
  /// How many bytes of the ring the records take, from the tail on.
  package var usedByteCount: UInt64
  /// Why there may be more: the ring cannot be read where the next record may stand. Nil where it can.
  package var damage: ExtentFSError?

  package init(lastSequence: UInt64, durableSequence: UInt64, usedByteCount: UInt64) {
    self.lastSequence = lastSequence
    self.durableSequence = durableSequence
    self.usedByteCount = usedByteCount
  }
}

/// Reads the live part of a journal, from the tail to the first record that is not there. It writes nothing.
///
/// Records of other stores, other epochs and earlier laps end the journal, as torn ones do (R3, R4).
package struct JournalReplay {
  private let device: any BlockDevice
  private let region: Range<UInt64>
  private let identity: JournalIdentity
  private let tail: JournalPosition

  /// Prepares to read the journal in the bytes `region` of `device` from `tail` on.
  ///
  /// - Throws: `.damaged` where region or tail are none.
  package init(
    device: any BlockDevice, region: Range<UInt64>, identity: JournalIdentity, tail: JournalPosition
  ) throws(ExtentFSError) {
    try JournalRing.check(region: region, start: tail, on: device)
    self.device = device
    self.region = region
    self.identity = identity
    self.tail = tail
  }

  private var ringByteCount: UInt64 { region.upperBound - region.lowerBound }

  /// Where the next life of the store begins its journal: in a new epoch, with a number above any that may ever have been
  /// written in this one, whatever was lost.
  package var nextStart: JournalPosition {
    JournalPosition(offset: 0, sequence: tail.sequence + ringByteCount / UInt64(JournalFormat.headerByteCount) + 1)
  }

  /// The same, but behind the records that end at `end`, none of which is written over by the first `byteCount` bytes from there on.
  /// To be used with an epoch that no other opening can have used: records are written there before a superblock says so.
  func startBehind(_ end: JournalEnd) -> (start: JournalPosition, byteCount: UInt64) {
    let block = JournalFormat.blockByteCount
    let used = JournalFormat.roundedUp(end.usedByteCount)
    let start = JournalPosition(offset: (tail.offset + used) % ringByteCount, sequence: nextStart.sequence)
    // Half, since a record that does not fit the rest of the ring begins at its start.
    return (start, (ringByteCount - used).saturatingSubtract(2 * block) / 2)
  }

  /// Hands each record to `body`, in order, and returns where they end. It may be run any number of times.
  ///
  /// - Throws: what `body` throws; `.device` where the ring cannot be read; `.damaged` for a record with a right checksum and
  ///   fields that cannot be.
  package func forEach(
    _ body: (JournalRecord) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) -> JournalEnd {
    let window = JournalWindow(device: device, region: region)
    var end = JournalEnd(
      lastSequence: tail.sequence - 1, durableSequence: tail.sequence - 1, usedByteCount: 0)
    while let (start, checked) = try nextRecord(after: end, window) {
      let record = try checked.decoded()
      end.lastSequence = record.sequence
      end.durableSequence = max(end.durableSequence, record.durableSequence)
      end.usedByteCount = start + UInt64(checked.byteCount)
      try body(record)
    }
    end.damage = damage(behind: end, window)
    return end
  }

  /// Looks behind `end` for a record that says that one which is missing was durable, and returns the number it tells.
  ///
  /// A power cut cannot cause that: the device forgot what it had promised to keep, or the medium decayed. Nil where there is
  /// no such record. It reads the whole ring.
  package func lostDurableSequence(after end: JournalEnd) throws(ExtentFSError) -> UInt64? {
    let window = JournalWindow(device: device, region: region)
    var found = end.lastSequence
    // Whatever was appended after a sync began in a fresh block, so that looking at the starts of blocks is enough.
    var distance = JournalFormat.roundedUp(end.usedByteCount)
    while distance < ringByteCount {
      if let record = try window.record(at: offset(distance), identity), record.sequence > end.lastSequence {
        found = max(found, record.durableSequence)
      }
      distance += JournalFormat.blockByteCount
    }
    return found > end.lastSequence ? found : nil
  }

  /// The record behind `end`, and how far behind the tail it starts; nil where it is in none of the places it could be in.
  private func nextRecord(
    after end: JournalEnd, _ window: JournalWindow
  ) throws(ExtentFSError) -> (UInt64, CheckedJournalRecord)? {
    let next = end.usedByteCount
    let freshBlock = JournalFormat.roundedUp(next)
    if let record = try record(at: next, after: end, window) { return (next, record) }
    if freshBlock != next, let record = try record(at: freshBlock, after: end, window) { return (freshBlock, record) }
    let ringStart = ringByteCount - tail.offset
    // It goes to the ring's start only where it might not fit the rest.
    guard next < ringStart, ringStart - freshBlock < UInt64(JournalFormat.recordByteCountMax),
      freshBlock != ringStart
    else { return nil }
    return try record(at: ringStart, after: end, window).map { (ringStart, $0) }
  }

  /// Why the ring cannot be read where the record behind `end` may stand, in its block or in a fresh one.
  private func damage(behind end: JournalEnd, _ window: JournalWindow) -> ExtentFSError? {
    let longest = UInt64(JournalFormat.recordByteCountMax)
    let start = offset(end.usedByteCount)
    let rest = ringByteCount - start
    if let error = window.damage(in: start..<start + min(longest + JournalFormat.blockByteCount, rest)) { return error }
    // It goes to the ring's start only where it might not fit the rest.
    return rest < longest + JournalFormat.blockByteCount ? window.damage(in: 0..<longest) : nil
  }

  private func record(
    at distance: UInt64, after end: JournalEnd, _ window: JournalWindow
  ) throws(ExtentFSError) -> CheckedJournalRecord? {
    // The writer always leaves a block free, so that the journal never comes round to its tail.
    let limit = ringByteCount - JournalFormat.blockByteCount
    guard distance < limit, let record = try window.record(at: offset(distance), identity),
      record.sequence == end.lastSequence + 1, distance + UInt64(record.byteCount) <= limit
    else { return nil }
    return record
  }

  private func offset(_ distance: UInt64) -> UInt64 {
    let offset = tail.offset + distance
    return offset < ringByteCount ? offset : offset - ringByteCount
  }
}

/// A piece of the ring in memory. Not for more than one thread.
@safe private final class JournalWindow {
  private let device: any BlockDevice
  private let region: Range<UInt64>
  private let bytes: UnsafeMutableRawBufferPointer
  /// How much is read at once.
  private static var byteCount: UInt64 { 1 << 20 }
  /// What of the ring is in `bytes`.
  private var held: Range<UInt64> = 0..<0
  /// The blocks of the ring, by their first bytes, that could not be read, and why. They are taken for zeroes.
  private var unreadable: [UInt64: ExtentFSError] = [:]

  init(device: any BlockDevice, region: Range<UInt64>) {
    self.device = device
    self.region = region
    unsafe bytes = .allocate(byteCount: Int(Self.byteCount), alignment: 8)
  }

  deinit { unsafe bytes.deallocate() }

  /// The record of `identity` at `offset` in the ring, which is a multiple of 8; nil where there is none.
  ///
  /// What it returns is good until the next call.
  func record(at offset: UInt64, _ identity: JournalIdentity) throws(ExtentFSError) -> CheckedJournalRecord? {
    let ringByteCount = region.upperBound - region.lowerBound
    let wanted = offset..<min(offset + UInt64(JournalFormat.recordByteCountMax), ringByteCount)
    if wanted.lowerBound < held.lowerBound || wanted.upperBound > held.upperBound { try load(from: offset) }
    let start = Int(offset - held.lowerBound)
    let count = Int(wanted.upperBound - wanted.lowerBound)
    // Safe: the wanted bytes are among those held, and those are in the buffer.
    return unsafe CheckedJournalRecord(
      UnsafeRawBufferPointer(rebasing: bytes[start..<start + count]), identity)
  }

  private func load(from offset: UInt64) throws(ExtentFSError) {
    let ringByteCount = region.upperBound - region.lowerBound
    let range = offset..<min(offset + Self.byteCount, ringByteCount)
    held = 0..<0
    do throws(ExtentFSError) {
      try read(range, from: offset)
    } catch {
      guard error.isUnreadable else { throw error }
      // Block by block: one that cannot be read says nothing of the others.
      var next = range.lowerBound
      while next < range.upperBound {
        let block = next / JournalFormat.blockByteCount * JournalFormat.blockByteCount
        let part = next..<min(block + JournalFormat.blockByteCount, range.upperBound)
        do throws(ExtentFSError) {
          try read(part, from: offset)
        } catch {
          guard error.isUnreadable else { throw error }
          unreadable[block] = error
          // Safe: as in `read`.
          unsafe UnsafeMutableRawBufferPointer(
            rebasing: bytes[Int(part.lowerBound - offset)..<Int(part.upperBound - offset)]
          ).initializeMemory(as: UInt8.self, repeating: 0)
        }
        next = part.upperBound
      }
    }
    held = range
  }

  /// Reads a part of the ring into its place among the bytes that begin with those at `offset`.
  private func read(_ part: Range<UInt64>, from offset: UInt64) throws(ExtentFSError) {
    // Safe: what is read at once is no longer than the buffer.
    try unsafe device.readPart(
      into: UnsafeMutableRawBufferPointer(
        rebasing: bytes[Int(part.lowerBound - offset)..<Int(part.upperBound - offset)]),
      at: region.lowerBound + part.lowerBound)
  }

  /// Why a block of the ring that has some of the bytes `range` could not be read; nil where all that were looked at could.
  func damage(in range: Range<UInt64>) -> ExtentFSError? {
    unreadable.filter { $0.key < range.upperBound && $0.key + JournalFormat.blockByteCount > range.lowerBound }
      .min { $0.key < $1.key }?.value
  }
}
