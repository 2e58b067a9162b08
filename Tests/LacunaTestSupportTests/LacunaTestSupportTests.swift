import Bytes
import LacunaTestSupport
import Testing

/// The helpers that the other tests trust.
@Suite struct LacunaTestSupportTests {
  @Test func `a seed gives the numbers that SplitMix64 is published with`() {
    var generator = SeededGenerator(seed: 1_234_567)
    let published: [UInt64] = [
      6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423, 4_593_380_528_125_082_431,
      16_408_922_859_458_223_821,
    ]
    #expect((0..<5).map { _ in generator.next() } == published)
  }

  @Test func `random ranges lie where they should and take every length`() {
    var generator = SeededGenerator(seed: 1)
    var lengths: Set<UInt64> = []
    for _ in 0..<1_000 {
      let range = generator.range(below: 10, longest: 4)
      lengths.insert(range.length)
      #expect(range.upperBound <= 10)
    }
    #expect(lengths == [1, 2, 3, 4])
    #expect(!generator.nonZeroBytes(10_000).contains(0))
  }

  @Test func `a failure of a random test names the seed`() {
    let error = #expect(throws: RandomTestFailure.self) {
      try withSeededGenerator { _ in throw CheckFailure("broken") }
    }
    #expect(error?.description.hasPrefix("broken (to repeat it: LACUNA_SEED=") == true)
  }

  @Test func `threads all run and the first error comes back`() throws {
    let ran = Locked<Set<Int>>([])
    try inThreads(8) { index in ran.withLock { _ = $0.insert(index) } }
    #expect(ran.withLock { $0 } == Set(0..<8))
    let error = #expect(throws: CheckFailure.self) {
      try inThreads(8) { index in if index > 2 { throw CheckFailure("\(index)") } }
    }
    #expect(error?.description == "3")
  }

  @Test func `a gate holds threads until it opens`() throws {
    let gate = Gate()
    let steps = Locked<[String]>([])
    try inThreads([
      {
        gate.pass()
        steps.withLock { $0.append("passed") }
      },
      {
        steps.withLock { $0.append("opened") }
        gate.open()
      },
    ])
    #expect(steps.withLock { $0 } == ["opened", "passed"])
    gate.pass()
  }

  @Test func `the reference disk notices each wrong byte`() throws {
    var disk = ReferenceDisk(byteCount: 4)
    disk.write([1, 2, 3], at: 3)
    #expect(disk.bytes == [0, 0, 0, 1, 2, 3])
    disk.zero(4..<100)
    #expect(disk.bytes == [0, 0, 0, 1, 0, 0])
    #expect(disk.isZero(0..<3) && disk.isZero(4..<6) && disk.isZero(2..<2) && !disk.isZero(2..<4))
    disk.resize(to: 4)
    disk.resize(to: 5)
    for index in disk.bytes.indices {
      var wrong = disk.bytes
      try wrong.withUnsafeBytes { try disk.check($0, at: 0) }
      wrong[index] ^= 0x80
      #expect(throws: CheckFailure.self) { try wrong.withUnsafeBytes { try disk.check($0, at: 0) } }
    }
  }
}

extension ReferenceDisk {
  fileprivate mutating func write(_ new: [UInt8], at offset: Int) { new.withUnsafeBytes { write($0, at: offset) } }
}
