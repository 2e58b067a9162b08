import BlockStores
import Bytes
import Extents
import LacunaTestSupport
import Testing

@Suite struct BlockChainTests {
  /// A chain beside the block at each place of some stretches of it; all other places are holes.
  private struct Model {
    private(set) var chain = BlockChain()
    /// First place of each stretch.
    let bases: [UInt64]
    let length: UInt64
    private var blocks: [[UInt64]]

    init(bases: [UInt64], length: UInt64) {
      (self.bases, self.length) = (bases, length)
      blocks = Array(repeating: Array(repeating: 0, count: Int(length)), count: bases.count)
    }

    mutating func replace(_ stretch: Int, _ places: Range<UInt64>, with block: UInt64) {
      let target: BlockLocation? = block == 0 ? nil : .physical(block)
      chain.replace(bases[stretch] + places.lowerBound..<bases[stretch] + places.upperBound, with: target)
      for place in places {
        blocks[stretch][Int(place)] = block == 0 ? 0 : block + place - places.lowerBound
      }
    }

    /// Makes everything from one place on a hole, whatever is there.
    mutating func cut(_ stretch: Int, at place: UInt64) {
      chain.replace(bases[stretch] + place..<1 << 55, with: nil)
      for place in place..<length { blocks[stretch][Int(place)] = 0 }
      for later in blocks.indices where bases[later] > bases[stretch] {
        blocks[later] = blocks[later].map { _ in 0 }
      }
    }

    func check(_ stretch: Int) throws {
      for place in 0..<length {
        let (found, expected) = (chain[bases[stretch] + place], blocks[stretch][Int(place)])
        try LacunaTestSupport.check(found == expected, "place \(bases[stretch] + place): \(found), not \(expected)")
      }
    }

    /// Compares the pieces of a range with maximal pieces made from the array, up to `limit` of them.
    func checkPieces(_ stretch: Int, _ places: Range<UInt64>, limit: Int) throws {
      let base = bases[stretch]
      var expected: [Piece] = []
      for place in places {
        let block = blocks[stretch][Int(place)]
        if let last = expected.last, block == (last.block == 0 ? 0 : last.block + last.places.length) {
          expected[expected.count - 1].places = last.places.lowerBound..<base + place + 1
        } else {
          expected.append(Piece(places: base + place..<base + place + 1, block: block))
        }
      }
      var found: [Piece] = []
      chain.forEachPiece(in: base + places.lowerBound..<base + places.upperBound) { piece, target in
        found.append(Piece(places: piece, block: target?.physicalBlock ?? 0))
        return found.count < limit
      }
      try LacunaTestSupport.check(
        found == Array(expected.prefix(limit)), "pieces \(found), not the first \(limit) of \(expected)")
    }
  }

  private struct Piece: Equatable {
    var places: Range<UInt64>
    var block: UInt64
  }

  @Test(.slow) func `random changes agree with an array, near and far`() throws {
    try withSeededGenerator { generator in
      // Stretches that cross the borders of nodes at several levels.
      var model = Model(bases: [0, (1 << 18) - 90, (1 << 36) - 50, 1 << 50], length: 180)
      var copies: [Model] = []
      for change in 0..<30_000 {
        let stretch = generator.number(below: model.bases.count)
        let places = generator.range(below: model.length, longest: generator.oneIn(20) ? model.length : 9)
        if generator.oneIn(500) {
          model.cut(stretch, at: places.lowerBound)
        } else {
          // Block numbers that often continue those beside them.
          let block = generator.oneIn(3) ? 0 : 1 + places.lowerBound + 1000 * generator.number(below: UInt64(2))
          model.replace(stretch, places, with: block)
        }
        try model.checkPieces(stretch, places, limit: 1 + generator.number(below: 5))
        guard change % 100 == 0 else { continue }
        try model.check(stretch)
        try model.checkPieces(stretch, 0..<model.length, limit: .max)
        if let copy = copies.randomElement(using: &generator) { try copy.check(generator.number(below: 4)) }
        if copies.count == 4 { copies.remove(at: generator.number(below: 4)) }
        copies.append(model)
        // A change to a copy must not show in the chain.
        copies[0].replace(stretch, places, with: 77)
        try model.check(stretch)
      }
    }
  }

  @Test func `a hole of any length is one piece`() {
    let chain = BlockChain()
    var pieces: [Range<UInt64>] = []
    chain.forEachPiece(in: 5..<1 << 54) { places, target in
      pieces.append(places)
      return target == nil
    }
    #expect(pieces == [5..<1 << 54])
  }

  @Test func `a single block far out lies between two holes`() {
    var chain = BlockChain()
    chain.replace(1 << 50..<(1 << 50) + 1, with: .physical(9))
    var pieces: [Range<UInt64>] = []
    var targets: [UInt64?] = []
    chain.forEachPiece(in: 0..<1 << 54) { places, target in
      pieces.append(places)
      targets.append(target?.physicalBlock)
      return true
    }
    let far: UInt64 = 1 << 50
    let expected: [Range<UInt64>] = [0..<far, far..<far + 1, far + 1..<1 << 54]
    #expect(pieces == expected)
    #expect(targets == [nil, 9, nil])
    #expect(chain[1 << 50] == 9)
    #expect(chain[(1 << 50) - 1] == 0)
    #expect(chain[.max - 1] == 0)
  }

  @Test func `the walk stops where it is told to`() {
    var chain = BlockChain()
    for place in stride(from: UInt64(0), to: 1000, by: 2) {
      chain.replace(place..<place + 1, with: .physical(1 + place))
    }
    for limit in [1, 2, 3, 128, 999, 1000] {
      var count = 0
      chain.forEachPiece(in: 0..<1000) { _, _ in
        count += 1
        return count < limit
      }
      #expect(count == limit)
    }
  }

  @Test func `places up to the last number of all can be used`() {
    var chain = BlockChain()
    let last = UInt64.max - 1
    chain.replace(last - 70..<UInt64.max, with: .physical(100))
    chain.replace(0..<1, with: .physical(1))
    #expect(chain[last] == 170)
    #expect(chain[last - 71] == 0)
    var pieces: [Range<UInt64>] = []
    chain.forEachPiece(in: 0..<UInt64.max) { places, _ in
      pieces.append(places)
      return true
    }
    #expect(pieces == [0..<1, 1..<last - 70, last - 70..<UInt64.max])
    chain.replace(0..<UInt64.max, with: nil)
    #expect(chain[last] == 0 && chain[0] == 0)
  }
}
