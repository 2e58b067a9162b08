import Bytes
import LacunaTestSupport
import Testing

/// The oracle: what it lets pass after a crash, and what it does not.
@Suite struct DiskLedgerTests {
  @Test func `before a flush a block may be old or new, and after it only new`() throws {
    let disk = Disk()
    let write = disk.write(0..<1)
    #expect(disk.passes([nil]) && disk.passes([write]))
    disk.tick()
    let flush = disk.ledger.willFlush()
    disk.tick()
    #expect(disk.passes([nil]))
    disk.ledger.didFinish(flush)
    #expect(!disk.passes([nil]) && disk.passes([write]))
    // A crash before the flush was over may still have lost the write.
    #expect(disk.passes([nil], at: 1))
    #expect(!disk.passes([nil], at: 2))
  }

  @Test func `a write that had not begun by the crash cannot be there`() {
    let disk = Disk()
    disk.tick()
    let write = disk.write(0..<1)
    #expect(!disk.passes([write], at: 0) && disk.passes([write], at: 1))
  }

  @Test func `a write that was never acknowledged may be there or not, even after a flush`() {
    let disk = Disk()
    let first = disk.write(0..<1)
    disk.flush()
    let second = disk.ledger.willWrite(0..<1)
    disk.flush()
    #expect(disk.passes([first]) && disk.passes([second]) && !disk.passes([nil]))
  }

  @Test func `a write refused may be there until a later one is flushed`() {
    let disk = Disk()
    let failed = disk.ledger.willWrite(0..<1)
    disk.ledger.didFail(failed)
    disk.flush()
    #expect(disk.passes([failed]) && disk.passes([nil]))
    let write = disk.write(0..<1)
    disk.flush()
    #expect(disk.passes([write]) && !disk.passes([failed]) && !disk.passes([nil]))
  }

  @Test func `a flush covers what was acknowledged before it began and no more`() {
    let disk = Disk()
    let early = disk.ledger.willWrite(0..<1)
    let flush = disk.ledger.willFlush()
    disk.ledger.didFinish(early)
    let late = disk.write(1..<2)
    disk.ledger.didFinish(flush)
    #expect(disk.passes([nil, nil]) && disk.passes([early, nil]) && disk.passes([nil, late]))
  }

  @Test func `a write with FUA needs no flush, and covers nothing else`() {
    let disk = Disk()
    let plain = disk.write(0..<1)
    let forced = disk.ledger.willWrite(1..<2)
    disk.ledger.didFinish(forced, durably: true)
    #expect(disk.passes([nil, forced]) && disk.passes([plain, forced]))
    #expect(!disk.passes([plain, nil]))
  }

  @Test func `what was overwritten and flushed cannot come back, and concurrent writes can be either`() {
    let disk = Disk()
    let old = disk.write(0..<1)
    let left = disk.ledger.willWrite(0..<1)
    let right = disk.ledger.willWrite(0..<1)
    disk.ledger.didFinish(right)
    disk.ledger.didFinish(left)
    #expect(disk.passes([old]))
    disk.flush()
    #expect(!disk.passes([old]) && disk.passes([left]) && disk.passes([right]))
  }

  @Test func `zeroes are a change like any other`() {
    let disk = Disk()
    let write = disk.write(0..<1)
    disk.flush()
    let zero = disk.ledger.willZero(0..<1)
    disk.ledger.didFinish(zero)
    #expect(disk.passes([nil]) && disk.passes([write]))
    disk.flush()
    #expect(disk.passes([nil]) && !disk.passes([write]))
  }

  @Test func `without a power cut what was acknowledged is there`() throws {
    let disk = Disk()
    let write = disk.write(0..<2)
    #expect(disk.passes([write, write], with: disk.ledger.expectation()))
    #expect(!disk.passes([write, nil], with: disk.ledger.expectation()))
  }

  @Test func `a block of another place, another disk or two writes, and each wrong byte, is found`() throws {
    let disk = Disk()
    let write = disk.write(0..<1)
    let second = disk.write(0..<2)
    let other = DiskLedger(blockByteCount: 1024, blockCount: 4, kind: 1) { 0 }
    let expectation = disk.ledger.expectation(at: 0)
    let right = disk.ledger.bytes(of: write)
    try right.withUnsafeBytes { try expectation.check($0, block: 0) }
    var wrong: [[UInt8]] = [
      Array(disk.ledger.bytes(of: second)[1024...]),
      other.bytes(of: other.willWrite(0..<1)),
      Array(right[..<512] + disk.ledger.bytes(of: second)[512..<1024]),
      Array(right[512...] + right[..<512]),
      Array(right[..<512] + [UInt8](repeating: 0, count: 512)),
      Array([UInt8](repeating: 0, count: 512) + right[512...]),
    ]
    for index in right.indices {
      var bytes = right
      bytes[index] ^= 0x10
      wrong.append(bytes)
    }
    for bytes in wrong {
      #expect(throws: CheckFailure.self) { try bytes.withUnsafeBytes { try expectation.check($0, block: 0) } }
    }
    let error = #expect(throws: CheckFailure.self) {
      try right.withUnsafeBytes { try expectation.check($0, block: 1) }
    }
    #expect(error?.description == "block 1 holds write 1 of block 0; it may hold write 2, zeroes")
  }

  @Test func `a large disk is read in pieces to its end, and an error of reading comes through`() throws {
    let ledger = DiskLedger(blockByteCount: 512, blockCount: 2000) { 0 }
    var end: UInt64 = 0
    try ledger.expectation(at: 0).check { buffer, offset in
      #expect(offset == end)
      end = offset + UInt64(buffer.count)
      buffer.initializeMemory(as: UInt8.self, repeating: 0)
    }
    #expect(end == 512 * 2000)
    let error = #expect(throws: CheckFailure.self) {
      try ledger.expectation(at: 0).check { _, _ in throw CheckFailure("no such sector") }
    }
    #expect(error?.description == "no such sector")
  }

  @Test func `threads may use one ledger`() throws {
    let clock = Locked(0)
    let ledger = DiskLedger(blockByteCount: 512, blockCount: 4) { clock.withLock { $0 } }
    try inThreads(4) { thread in
      for _ in 0..<200 {
        ledger.didFinish(ledger.willWrite(UInt64(thread)..<UInt64(thread) + 1))
        clock.withLock { $0 += 1 }
        ledger.didFinish(ledger.willFlush())
      }
    }
    let expectation = ledger.expectation(at: 800)
    let numbers = try (0..<4 as Range<UInt64>).map { block in
      try (1...800).filter { number in
        let change = DiskLedger.Change(number: number, blocks: block..<block + 1, zeroes: false)
        return try passes(ledger.bytes(of: change), expectation, block: block)
      }
    }
    #expect(numbers.allSatisfy { $0.count == 1 })
  }

  private func passes(_ bytes: [UInt8], _ expectation: DiskExpectation, block: UInt64) throws -> Bool {
    do {
      try bytes.withUnsafeBytes { try expectation.check($0, block: block) }
      return true
    } catch is CheckFailure {
      return false
    }
  }
}

/// A disk of four blocks, its ledger, and a clock that is set by hand.
private struct Disk {
  private let clock: Locked<Int>
  let ledger: DiskLedger

  init() {
    let clock = Locked(0)
    self.clock = clock
    ledger = DiskLedger(blockByteCount: 1024, blockCount: 4) { clock.withLock { $0 } }
  }

  func tick() { clock.withLock { $0 += 1 } }

  func write(_ blocks: Range<UInt64>) -> DiskLedger.Change {
    let change = ledger.willWrite(blocks)
    ledger.didFinish(change)
    return change
  }

  func flush() { ledger.didFinish(ledger.willFlush()) }

  /// Whether a disk that holds these changes, nil for zeroes, is right after a crash now or at `point`.
  func passes(_ blocks: [DiskLedger.Change?], at point: Int? = nil) -> Bool {
    passes(blocks, with: ledger.expectation(at: point ?? clock.withLock { $0 }))
  }

  func passes(_ blocks: [DiskLedger.Change?], with expectation: DiskExpectation) -> Bool {
    var bytes = [UInt8](repeating: 0, count: 4096)
    for (index, change) in blocks.enumerated() {
      guard let change else { continue }
      let start = (index - Int(change.blocks.lowerBound)) * 1024
      bytes.replaceSubrange(index * 1024..<(index + 1) * 1024, with: ledger.bytes(of: change)[start..<start + 1024])
    }
    do {
      try expectation.check { buffer, offset in buffer.copyBytes(from: bytes[Int(offset)..<Int(offset) + buffer.count])
      }
      return true
    } catch {
      return false
    }
  }
}
