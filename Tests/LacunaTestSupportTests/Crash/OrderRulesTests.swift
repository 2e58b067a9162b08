import Bytes
import Devices
import LacunaTestSupport
import Testing

/// The order checker on recordings made by hand: a commit record in the first sector says which sector it reaches.
@Suite struct OrderRulesTests {
  private static let rules = OrderRules(commitRanges: [0..<512], exemptRanges: [512..<1024]) { image in
    let sector = UInt64(image.bytes(0..<1)[0])
    return sector == 0 ? [] : [sector * 512..<(sector + 1) * 512]
  }

  @Test func `writing, syncing, committing and syncing is right`() throws {
    try check { device in
      for sector in [4, 5, 4, 6] as [UInt8] {
        try device.write(bytes: [1], at: UInt64(sector) * 512)
        try device.write(bytes: [1], at: 600)
        try device.sync()
        try device.write(bytes: [sector], at: 0)
        try device.sync()
      }
    }
  }

  @Test func `a commit before the sync is found`() {
    expectFinding("before call 0") { device in
      try device.write(bytes: [1], at: 4 * 512)
      try device.write(bytes: [4], at: 0)
    }
  }

  @Test func `a commit before the new length is durable is found`() {
    expectFinding("before call 0 (grow from 8192 to 16384) is durable") { device in
      try device.grow(to: 16_384)
      try device.write(bytes: [4], at: 0)
    }
  }

  @Test func `writing and discarding what the durable commit reaches is found`() {
    for discards in [false, true] {
      expectFinding("the durable commit record reaches") { device in
        try device.write(bytes: [4], at: 0)
        try device.sync()
        if discards { try device.discard(2000..<2049) } else { try device.write(bytes: [1], at: 2048) }
      }
    }
  }

  @Test func `reusing what the last commit freed before it is durable is found`() {
    expectFinding("the durable commit record reaches") { device in
      try device.write(bytes: [4], at: 0)
      try device.sync()
      try device.write(bytes: [5], at: 0)
      try device.write(bytes: [1], at: 4 * 512)
    }
  }

  @Test func `writing what an unsynced commit reaches is found`() {
    expectFinding("the commit record of call 0 reaches") { device in
      try device.write(bytes: [5], at: 0)
      try device.write(bytes: [1], at: 5 * 512)
    }
  }

  private func check(_ body: (CrashDevice) throws -> Void) throws {
    let device = CrashDevice(byteCount: 8192, maximumByteCount: 16_384)
    try body(device)
    try Self.rules.check(device.log)
  }

  private func expectFinding(_ words: String, _ body: (CrashDevice) throws -> Void) {
    let error = #expect(throws: CheckFailure.self) { try check(body) }
    #expect(error?.description.contains(words) == true, "\(error?.description ?? "nothing")")
  }
}
