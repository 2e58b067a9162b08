import Bytes
import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// The watch over the journal, on a right recording and on ones made wrong: tests of the tests.
@Suite struct JournalRulesTests {
  /// A workload that stays in one epoch, with two flushes, whose last writes nothing has flushed.
  private static func recording() throws -> CrashLog {
    let device = CrashDevice(byteCount: 0, maximumByteCount: 1 << 20)
    let shape = CrashShape(limitByteCount: 1 << 20, diskByteCount: 64 * 1024)
    try CrashStore.format(device, shape)
    device.restart()
    let store = try CrashStore(opening: device, shape)
    let ledgers = CrashLedgers(shape) { device.callCount }
    for round in 0..<3 as Range<UInt64> {
      try store.write(round * 4..<round * 4 + 4, ledgers)
      try store.write(20..<21, ledgers)
      if round < 2 { try store.volumes[0].flush() }
    }
    let log = device.log
    store.close()
    return log
  }

  private static func isRecord(_ call: CrashDevice.Call) -> Bool {
    guard case .write(let offset, _) = call else { return false }
    return CrashStore.journalBytes.contains(offset)
  }

  /// The numbers of the calls that write records.
  private static func records(_ log: CrashLog) -> [Int] { log.calls.indices.filter { isRecord(log.calls[$0]) } }

  private static func check(_ start: MediumImage, _ calls: [CrashDevice.Call]) throws {
    try JournalRules.check(CrashLog(start: start, calls: calls), journal: CrashStore.journalBytes)
  }

  /// The rules find what `change` makes of the recording, and say `words`.
  private func expectFinding(_ words: String, _ change: (inout [CrashDevice.Call], _ records: [Int]) throws -> Void)
    throws
  {
    let log = try Self.recording()
    var calls = log.calls
    try change(&calls, Self.records(log))
    let error = #expect(throws: CheckFailure.self) { try Self.check(log.start, calls) }
    #expect(error?.description.contains(words) == true, "\(error?.description ?? "nothing")")
  }

  @Test func `what the engine does is right`() throws {
    let log = try Self.recording()
    #expect(Self.records(log).count >= 6)
    try Self.check(log.start, log.calls)
  }

  @Test func `a record before its data is found`() throws {
    try expectFinding("is not what the record says") { calls, records in
      let data = try #require(calls[..<records[1]].lastIndex { !Self.isRecord($0) && $0.changedRange != nil })
      calls.swapAt(data, records[1])
    }
  }

  @Test func `a record that promises what no sync covered is found`() throws {
    try expectFinding("no sync has covered that") { calls, records in
      for (number, call) in calls.enumerated() where number > records[0] {
        if case .sync = call { calls[number] = .sync(covers: 0) }
      }
    }
  }

  @Test func `a number used twice is found`() throws {
    try expectFinding("its number is") { calls, records in
      guard case .write(let offset, let bytes) = calls[records[0]] else { return }
      calls.append(.write(offset: offset + 32768, bytes: bytes))
    }
  }

  @Test func `a live record written over is found`() throws {
    try expectFinding("touches record") { calls, records in calls.append(calls[records[2]]) }
  }

  @Test func `data of a live record written over or discarded is found`() throws {
    for discards in [false, true] {
      try expectFinding("touches data of record") { calls, records in
        let data = try #require(calls[..<records[1]].lastIndex { !Self.isRecord($0) && $0.changedRange != nil })
        let range = try #require(calls[data].changedRange)
        calls.append(discards ? .discard(range) : .write(offset: range.lowerBound, bytes: [1]))
      }
    }
  }

  @Test func `what is no record is found`() throws {
    try expectFinding("is no record") { calls, records in
      guard case .write(let offset, var bytes) = calls[records[0]] else { return }
      bytes[30] ^= 1
      calls[records[0]] = .write(offset: offset, bytes: bytes)
    }
  }
}
