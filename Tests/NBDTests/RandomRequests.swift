import Glibc
import LacunaTestSupport
import NBDTestSupport

/// A seeded stream of requests on one connection and one part of the disk, checked against a flat array.
///
/// The part may start and end inside a block, so that two streams beside one another share one. Beside the bytes it
/// follows the state of each block that lies wholly in the part, for the engines whose block status tells holes.
struct RandomRequests {
  /// What block status must say of a block; `unknown` where the rules leave it open.
  private enum BlockState: Equatable {
    case known(AllocationState)
    case unknown
  }

  private let engine: Engine
  private let client: NBDClient
  private var generator: SeededGenerator
  private var disk: ExpectedBytes
  private var blockStates: [UInt64: BlockState] = [:]
  /// What was sent last, for messages.
  private(set) var lastRequest = "nothing"

  private static let blockBytes = PluginUnderTest.blockBytes
  private static let requestBytesMax: UInt64 = 300_000

  init(_ engine: Engine, _ client: NBDClient, range: Range<UInt64>, _ generator: SeededGenerator) {
    self.engine = engine
    self.client = client
    self.generator = generator
    disk = ExpectedBytes(range: range)
    for block in RandomRequests.wholeBlocks(range) { blockStates[block] = .known([.hole, .zero]) }
  }

  /// Sends `count` requests, then compares the whole part.
  ///
  /// - Throws: at the first difference, with the step and the request.
  mutating func run(_ count: Int) throws {
    for step in 0..<count {
      do {
        try sendOne()
        if step % 100 == 99 { try checkBlockStatus() }
      } catch {
        throw CheckFailure("step \(step), \(lastRequest): \(error)")
      }
    }
    lastRequest = "all steps"
    try disk.check(client)
    try checkBlockStatus()
  }

  private mutating func sendOne() throws {
    let range = randomRange()
    switch Int.random(in: 0..<100, using: &generator) {
    case 0..<35: try write(range)
    case 35..<60:
      lastRequest = "read \(range)"
      try disk.check(client.read(range.count, at: range.lowerBound), at: range.lowerBound)
    case 60..<76: try zero(range)
    case 76..<88: try trim(range)
    case 88..<92:
      lastRequest = "flush"
      try client.flush()
    case 92..<94:
      lastRequest = "cache \(range)"
      try client.cache(UInt64(range.count), at: range.lowerBound)
    default: try checkOneStatusAnswer(range)
    }
  }

  private mutating func write(_ range: Range<UInt64>) throws {
    let bytes = generator.pattern(range.count)
    let flags: CommandFlags = chance(8) ? .fua : []
    lastRequest = "write \(range) \(flags)"
    try client.write(bytes, at: range.lowerBound, flags: flags)
    disk.write(bytes, at: range.lowerBound)
    for block in touchedBlocks(range) { set(block, .known(.data)) }
  }

  private mutating func zero(_ range: Range<UInt64>) throws {
    var flags: CommandFlags = []
    if chance(2) { flags.insert(.noHole) }
    if chance(8) { flags.insert(.fua) }
    if chance(4) { flags.insert(.fastZero) }
    lastRequest = "zero \(range) \(flags)"
    do {
      try client.zero(UInt64(range.count), at: range.lowerBound, flags: flags)
    } catch {
      guard error.code == ENOTSUP && flags.contains(.fastZero) else { throw error }
      // Refused because it would be slow: nothing may have changed.
      return try disk.check(client, range)
    }
    disk.zero(range)
    let state = flags.contains(.noHole) ? engine.stateAfterZeroWithoutHole : [.hole, .zero]
    zeroStates(range, whole: state)
  }

  private mutating func trim(_ range: Range<UInt64>) throws {
    lastRequest = "trim \(range)"
    try client.trim(UInt64(range.count), at: range.lowerBound, flags: chance(8) ? .fua : [])
    // A trim is advice: each byte is what it was or zero. Whole blocks become holes where the engine has them.
    let found = try client.read(range.count, at: range.lowerBound)
    // The likely answers first, since a debug build is slow at comparing byte by byte: edges kept, edges zeroed too.
    var edgesKept = disk
    let inside = RandomRequests.wholeBlocks(range)
    for block in inside { edgesKept.zero(RandomRequests.bytes(of: block)) }
    var edgesZeroed = disk
    edgesZeroed.zero(range)
    if (try? edgesKept.check(found, at: range.lowerBound)) == nil,
      (try? edgesZeroed.check(found, at: range.lowerBound)) == nil
    {
      for (offset, (new, old)) in zip(range, zip(found, disk[range])) where new != 0 && new != old {
        throw CheckFailure("byte \(offset) was \(old) and became \(new) where only zero could be")
      }
    }
    disk.write(found, at: range.lowerBound)
    if engine.tracksHoles {
      for block in inside where !disk.isZero(RandomRequests.bytes(of: block)) {
        throw CheckFailure("block \(block) was trimmed and is not zero")
      }
    }
    zeroStates(range, whole: [.hole, .zero])
  }

  /// Asks about `range` once and compares the answer with the bytes and the states.
  private mutating func checkOneStatusAnswer(_ range: Range<UInt64>) throws {
    let flags: CommandFlags = chance(2) ? .requestOne : []
    lastRequest = "block status \(range) \(flags)"
    let answer = try client.blockStatus(UInt64(range.count), at: range.lowerBound, flags: flags)
    let total = answer.reduce(0) { $0 + $1.byteCount }
    if total == 0 || total > range.count || (flags == .requestOne && answer.count != 1) {
      throw CheckFailure("the answer \(answer) does not fit \(range)")
    }
    try check(answer)
  }

  private func checkBlockStatus() throws {
    let extents = try client.allocation(of: disk.range)
    guard extents.last?.end == disk.range.upperBound else {
      throw CheckFailure("block status does not cover \(disk.range): \(extents)")
    }
    try check(extents)
  }

  private func check(_ extents: [AllocationExtent]) throws {
    try disk.checkZeroes(of: extents)
    guard engine.tracksHoles else { return }
    for extent in extents {
      for block in touchedBlocks(extent.offset..<extent.end) {
        if case .known(let state)? = blockStates[block], state != extent.state {
          throw CheckFailure("block \(block) should be \(state) and lies in \(extent)")
        }
      }
    }
  }

  /// Notes what a zero or trim did: whole blocks get `whole`, the partial ones at its ends keep their data if any.
  private mutating func zeroStates(_ range: Range<UInt64>, whole: AllocationState) {
    let inside = RandomRequests.wholeBlocks(range)
    for block in touchedBlocks(range) {
      if inside.contains(block) {
        set(block, .known(whole))
      } else if disk.isZero(RandomRequests.bytes(of: block)) {
        set(block, .unknown)
      }
    }
  }

  private mutating func set(_ block: UInt64, _ state: BlockState) {
    if blockStates[block] != nil { blockStates[block] = state }
  }

  private mutating func chance(_ oneIn: Int) -> Bool { Int.random(in: 0..<oneIn, using: &generator) == 0 }

  /// Small, about a block, of whole blocks, or long; anywhere in the part, at times at its very end.
  private mutating func randomRange() -> Range<UInt64> {
    let whole = disk.range
    var length: UInt64 =
      switch Int.random(in: 0..<4, using: &generator) {
      case 0: .random(in: 1...100, using: &generator)
      case 1: .random(in: 4_000...4_200, using: &generator)
      case 2: RandomRequests.blockBytes * .random(in: 1...20, using: &generator)
      default: .random(in: 1...RandomRequests.requestBytesMax, using: &generator)
      }
    length = min(length, UInt64(whole.count))
    var start = UInt64.random(in: whole.lowerBound...whole.upperBound - length, using: &generator)
    if chance(2) {
      // From the start of a block, where that lies in the part.
      let aligned = start / RandomRequests.blockBytes * RandomRequests.blockBytes
      if aligned >= whole.lowerBound { start = aligned }
    }
    if chance(30) { start = whole.upperBound - length }
    return start..<start + length
  }

  private func touchedBlocks(_ range: Range<UInt64>) -> ClosedRange<UInt64> {
    range.lowerBound / RandomRequests.blockBytes...(range.upperBound - 1) / RandomRequests.blockBytes
  }

  private static func wholeBlocks(_ range: Range<UInt64>) -> Range<UInt64> {
    let first = (range.lowerBound + blockBytes - 1) / blockBytes
    return first..<max(first, range.upperBound / blockBytes)
  }

  private static func bytes(of block: UInt64) -> Range<UInt64> { block * blockBytes..<(block + 1) * blockBytes }
}
