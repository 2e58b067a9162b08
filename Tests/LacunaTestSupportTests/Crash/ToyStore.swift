import Bytes
import Devices
import LacunaTestSupport

/// A disk of a few blocks in a log-structured store that is as small as one can be, right, and wrong in chosen ways.
///
/// ```
/// byte      0  superblock slots 0 and 1, a sector each, written alternately
///        1024  table slots 0 and 1, a sector each: for each logical block its physical block, 0 for zeroes
///        2048  log of `logCount` records, a sector each: one for each write since the table was written
///        ....  physical blocks 1 to `physicalCount`
/// every sector but those of physical blocks: 8 bytes checksum of the rest, then its fields, 8 bytes each
/// ```
///
/// A write goes to a free physical block, with a record that has its checksum. A flush is one sync. A checkpoint writes
/// the table to the other slot, syncs, writes the superblock to the other slot, syncs, and begins the log anew.
struct ToyStore {
  /// What may be wrong with it.
  enum Flaw: CaseIterable, Sendable {
    /// A flush does not sync.
    case flushSkipsSync
    /// Recovery believes records whose data never came.
    case ignoresChecksums
    /// A block is reused at once when it is overwritten, not after the next checkpoint.
    case reusesBlocksEarly
    /// A checkpoint does not sync between the table and the superblock.
    case superblockBeforeSync
    /// A checkpoint does not sync after the superblock, and reuses the log and the blocks all the same.
    case reusesLogEarly
    /// Recovery takes records of the log's earlier laps.
    case ignoresLaps
    /// A checkpoint writes the table over the one in use.
    case overwritesTable
  }

  static let blockByteCount = 1024
  static let logicalCount = 12
  static let physicalCount = 22
  static let logCount = 10
  static let firstLog: UInt64 = 2048
  static let firstBlock = firstLog + UInt64(512 * logCount)
  static let byteCount = firstBlock + UInt64(blockByteCount * physicalCount)

  let device: CrashDevice
  let flaw: Flaw?
  private var table = [UInt64](repeating: 0, count: logicalCount)
  private var generation: UInt64 = 1
  private var logUsed = 0
  private var free = Array((1...UInt64(physicalCount)).reversed())
  /// Freed since the last checkpoint.
  private var freed: [UInt64] = []

  // MARK: Opening

  static func format(_ device: CrashDevice) throws {
    try device.writeSector(Sector([1] + [UInt64](repeating: 0, count: logicalCount)), at: 1024 + 512)
    try device.sync()
    try device.writeSector(Sector([1]), at: 512)
    try device.sync()
  }

  init(opening device: CrashDevice, flaw: Flaw? = nil) throws {
    self.device = device
    self.flaw = flaw
    let slots = try [UInt64(0), 512].compactMap { try device.sector(at: $0)?.words.first }
    guard let newest = slots.max() else { throw CheckFailure("no superblock") }
    generation = newest
    guard let found = try device.sector(at: tableOffset(of: newest)), found.words[0] == newest else {
      throw CheckFailure("the table of superblock \(newest) is damaged")
    }
    table = Array(found.words[1...Self.logicalCount])
    let mustCheckpoint = try replay()
    let used = Set(table)
    free.removeAll { used.contains($0) }
    // So that the records dropped are never taken for new ones.
    if mustCheckpoint { try checkpoint() }
  }

  /// Applies the records of this generation; returns whether the log held any of them.
  private mutating func replay() throws -> Bool {
    var found = false
    for index in 0..<Self.logCount {
      guard let record = try device.sector(at: logOffset(index)), isExpected(record, index) else { break }
      found = true
      let (logical, physical) = (Int(record.words[2]), record.words[3])
      if physical != 0, flaw != .ignoresChecksums {
        guard Sector.checksum(try block(physical)) == record.words[4] else { break }
      }
      // What the table or a record reaches is not free, whatever replaced it: recovery may be repeated.
      table[logical] = physical
    }
    return found
  }

  private func isExpected(_ record: Sector, _ index: Int) -> Bool {
    (record.words[0] == generation || flaw == .ignoresLaps) && record.words[1] == UInt64(index)
  }

  // MARK: Serving

  func read(_ logical: Int) throws -> [UInt8] {
    table[logical] == 0 ? [UInt8](repeating: 0, count: Self.blockByteCount) : try block(table[logical])
  }

  mutating func write(_ bytes: [UInt8], to logical: Int) throws {
    try makeRoom()
    let physical = free.removeLast()
    try device.write(bytes: bytes, at: blockOffset(physical))
    try map(logical, to: physical, checksum: Sector.checksum(bytes))
  }

  mutating func zero(_ logical: Int) throws {
    try makeRoom()
    try map(logical, to: 0, checksum: 0)
  }

  func flush() throws {
    if flaw != .flushSkipsSync { try device.sync() }
  }

  mutating func checkpoint() throws {
    let next = generation + 1
    let offset = tableOffset(of: flaw == .overwritesTable ? generation : next)
    try device.writeSector(Sector([next] + table), at: offset)
    if flaw == .overwritesTable { try device.writeSector(Sector([next] + table), at: tableOffset(of: next)) }
    if flaw != .superblockBeforeSync { try device.sync() }
    try device.writeSector(Sector([next]), at: next % 2 * 512)
    if flaw != .reusesLogEarly { try device.sync() }
    generation = next
    logUsed = 0
    free = freed + free
    freed = []
  }

  private mutating func makeRoom() throws {
    if logUsed == Self.logCount || free.isEmpty { try checkpoint() }
  }

  private mutating func map(_ logical: Int, to physical: UInt64, checksum: UInt64) throws {
    let record = Sector([generation, UInt64(logUsed), UInt64(logical), physical, checksum])
    try device.writeSector(record, at: logOffset(logUsed))
    logUsed += 1
    if table[logical] != 0 {
      if flaw == .reusesBlocksEarly { free.append(table[logical]) } else { freed.append(table[logical]) }
    }
    table[logical] = physical
  }

  // MARK: Layout

  private func tableOffset(of generation: UInt64) -> UInt64 { 1024 + generation % 2 * 512 }
  private func logOffset(_ index: Int) -> UInt64 { Self.firstLog + UInt64(512 * index) }
  private func blockOffset(_ physical: UInt64) -> UInt64 { Self.blockRange(physical).lowerBound }

  private func block(_ physical: UInt64) throws -> [UInt8] {
    try device.bytes(Self.blockRange(physical))
  }

  private static func blockRange(_ physical: UInt64) -> Range<UInt64> {
    let start = firstBlock + (physical - 1) * UInt64(blockByteCount)
    return start..<start + UInt64(blockByteCount)
  }

  /// The order that its device calls must keep. The log and the blocks it maps are verified by recovery.
  static let orderRules = OrderRules(commitRanges: [0..<1024], exemptRanges: [firstLog..<byteCount]) { image in
    let slots = [UInt64(0), 512].compactMap { Sector(bytes: image.bytes($0..<$0 + 512))?.words.first }
    guard let newest = slots.max() else { return [] }
    let offset = 1024 + newest % 2 * 512
    guard let table = Sector(bytes: image.bytes(offset..<offset + 512)) else { return [] }
    return [offset..<offset + 512] + table.words[1...logicalCount].filter { $0 != 0 }.map(blockRange)
  }
}

/// Sixty-three numbers and their checksum.
private struct Sector {
  let words: [UInt64]

  init(_ words: [UInt64]) { self.words = words + [UInt64](repeating: 0, count: 63 - words.count) }

  init?(bytes: [UInt8]) {
    let all = bytes.withUnsafeBytes { buffer in
      (0..<64).map { buffer.loadUnaligned(fromByteOffset: 8 * $0, as: UInt64.self) }
    }
    guard all[0] == Self.checksum(Array(bytes[8...])) else { return nil }
    words = Array(all[1...])
  }

  var bytes: [UInt8] {
    let rest = words.flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
    let sum = Self.checksum(rest)
    return (0..<8).map { UInt8(truncatingIfNeeded: sum >> (8 * $0)) } + rest
  }

  /// FNV-1a over words, never zero.
  static func checksum(_ bytes: [UInt8]) -> UInt64 {
    bytes.withUnsafeBytes { buffer in
      var sum: UInt64 = 0xCBF2_9CE4_8422_2325
      var offset = 0
      while offset < buffer.count {
        sum = (sum ^ buffer.loadUnaligned(fromByteOffset: offset, as: UInt64.self)) &* 0x0000_0100_0000_01B3
        sum ^= sum >> 29
        offset += 8
      }
      return sum | 1
    }
  }
}

extension BlockDevice {
  func bytes(_ range: Range<UInt64>) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(range.length))
    try bytes.withUnsafeMutableBytes { try read(into: $0, at: range.lowerBound) }
    return bytes
  }

  fileprivate func writeSector(_ sector: Sector, at offset: UInt64) throws {
    try write(bytes: sector.bytes, at: offset)
  }

  fileprivate func sector(at offset: UInt64) throws -> Sector? {
    Sector(bytes: try bytes(offset..<offset + 512))
  }
}

extension CrashScenario where Store == ToyStore, Oracle == DiskLedger, Expectation == DiskExpectation {
  /// Random writes, zeroes, flushes and checkpoints on a toy store.
  static func toy(flaw: ToyStore.Flaw? = nil, stepCount: Int = 120) -> CrashScenario {
    CrashScenario(
      name: "toy", byteCount: ToyStore.byteCount, stepCount: stepCount,
      format: { try ToyStore.format($0) },
      open: { try ToyStore(opening: $0, flaw: flaw) },
      oracle: {
        DiskLedger(blockByteCount: ToyStore.blockByteCount, blockCount: UInt64(ToyStore.logicalCount), clock: $0)
      },
      step: { store, ledger, _, generator in try store.takeStep(ledger, &generator) },
      expectation: { ledger, point in ledger.expectation(at: point) },
      check: { store, expectation in
        try expectation.check { buffer, offset in
          for position in stride(from: 0, to: buffer.count, by: ToyStore.blockByteCount) {
            let bytes = try store.read((Int(offset) + position) / ToyStore.blockByteCount)
            UnsafeMutableRawBufferPointer(rebasing: buffer[position...]).copyBytes(from: bytes)
          }
        }
      })
  }
}

extension ToyStore {
  fileprivate mutating func takeStep(_ ledger: DiskLedger, _ generator: inout SeededGenerator) throws {
    let block = generator.number(below: UInt64(Self.logicalCount))
    switch generator.number(below: 20) {
    case 0..<12:
      let change = ledger.willWrite(block..<block + 1)
      try write(ledger.bytes(of: change), to: Int(block))
      ledger.didFinish(change)
    case 12..<14:
      let change = ledger.willZero(block..<block + 1)
      try zero(Int(block))
      ledger.didFinish(change)
    case 14..<18:
      let flush = ledger.willFlush()
      try self.flush()
      ledger.didFinish(flush)
    case 18: try checkpoint()
    default: self = try ToyStore(opening: device, flaw: flaw)
    }
  }
}
