import Testing

@testable import Extents

/// Neighbouring runs come out as one where they say the same.
@Suite struct RunJoinerTests {
  private func join<Value: RunValue>(
    _ runs: [(Range<UInt64>, Value)], limit: Int = .max
  ) -> [Run<Value>] {
    var joined: [Run<Value>] = []
    var joiner = RunJoiner<Value>()
    func take(_ positions: Range<UInt64>, _ value: Value) -> Bool {
      joined.append(Run(positions, value))
      return joined.count < limit
    }
    var shouldContinue = true
    for (positions, value) in runs where shouldContinue { shouldContinue = joiner.append(positions, value, take) }
    joiner.end(take)
    return joined
  }

  @Test func `runs of one content that touch are one`() {
    let joined = join([(0..<4, RangeContent.data), (4..<6, .data), (6..<7, .hole), (7..<9, .unwritten)])
    #expect(joined == [Run(0..<6, .data), Run(6..<7, .hole), Run(7..<9, .unwritten)])
  }

  @Test func `runs that do not touch stay apart`() {
    #expect(join([(0..<4, RangeContent.data), (5..<6, .data)]) == [Run(0..<4, .data), Run(5..<6, .data)])
  }

  @Test func `blocks are joined where the second run lies after the first one on the medium, too`() {
    let joined = join([(0..<4, BlockLocation.physical(10)), (4..<6, .physical(14)), (6..<7, .physical(20))])
    #expect(joined == [Run(0..<6, .physical(10)), Run(6..<7, .physical(20))])
  }

  @Test(arguments: [1, 2])
  func `nothing comes after a false`(limit: Int) {
    let joined = join([(0..<1, RangeContent.data), (1..<2, .hole), (2..<3, .data), (3..<4, .hole)], limit: limit)
    #expect(joined == Array([Run(0..<1, RangeContent.data), Run(1..<2, .hole)].prefix(limit)))
  }

  @Test func `no runs are no call`() { #expect(join([(Range<UInt64>, RangeContent)]()).isEmpty) }

  @Test func `a location says what a client finds there, and where the blocks after it are`() {
    #expect(BlockLocation.physical(7).content == .data)
    #expect(BlockLocation.unwritten.content == .unwritten)
    #expect(BlockLocation.hole.content == .hole)
    #expect(BlockLocation.physical(7).advanced(by: 3) == .physical(10))
    #expect(BlockLocation.unwritten.advanced(by: 3) == .unwritten)
    #expect(BlockLocation.hole.advanced(by: 3) == .hole)
    #expect(BlockLocation.hole.physicalBlock == nil && BlockLocation.unwritten.physicalBlock == nil)
    #expect(BlockLocation.physical(1 << 62).physicalBlock == 1 << 62)
  }
}
