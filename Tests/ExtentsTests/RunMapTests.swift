import Extents
import LacunaTestSupport
import Testing

@Suite struct RunMapTests {
  @Test func `an empty map has no runs and one gap`() throws {
    let model = RunMapModel<Colour>(borders: [0, 10])
    try model.check()
    try model.checkPieces(in: 0..<1, limit: 2)
    #expect(model.map.run(at: 5) == nil)
    #expect(model.map.firstRun(endingAfter: 0) == nil)
  }

  @Test func `replacing an empty range changes nothing`() throws {
    var map = RunMap<Colour>(capacity: NodeCapacity(runs: 4, children: 4))
    map.replace(3..<3, with: Colour(number: 1))
    #expect(map.isEmpty)
    map.replace(0..<9, with: Colour(number: 1))
    map.replace(5..<5, with: nil)
    #expect(map.runs == [Run(0..<9, Colour(number: 1))])
  }

  @Test func `a run that continues its neighbours joins both`() {
    var map = RunMap<Place>()
    map.replace(0..<10, with: Place(number: 100))
    map.replace(20..<30, with: Place(number: 120))
    map.replace(10..<20, with: Place(number: 110))
    #expect(map.runs == [Run(0..<30, Place(number: 100))])
    map.replace(10..<20, with: Place(number: 111))
    #expect(map.runs.map(\.positions) == [0..<10, 10..<20, 20..<30])
  }

  @Test func `reserved zeroes join each other and never a physical run`() {
    var map = RunMap<BlockLocation>()
    map.replace(0..<10, with: .unwritten)
    map.replace(10..<20, with: .unwritten)
    map.replace(20..<30, with: .physical(7))
    map.replace(30..<40, with: .unwritten)
    #expect(map.runs.map(\.positions) == [0..<20, 20..<30, 30..<40])
    #expect(map.runs.map(\.value.physicalBlock) == [nil, 7, nil])
  }

  // Found by the random test: the run crossed from one leaf into the next, whose key stayed inside the run, and look-ups
  // behind that key missed it.
  @Test func `a run that reaches into the next leaf is found from all of its positions`() throws {
    var model = RunMapModel<Colour>(borders: (0...40).map { $0 })
    for cell in stride(from: 0, to: 20, by: 2) { model.replace(cell..<cell + 1, with: Colour(number: 1)) }
    for start in stride(from: 0, to: 20, by: 2) {
      var copy = model
      copy.replace(start..<start + 7, with: Colour(number: 2))
      try copy.check()
      for cell in 0..<40 { try copy.checkLookUps(in: cell..<cell + 1) }
    }
  }

  @Test(.slow) func `random changes of places agree with an array`() throws { try randomChanges(Place.self, 40_000) }

  @Test(.slow)
  func `random changes of constants agree with an array`() throws { try randomChanges(Colour.self, 40_000) }

  @Test(.slow) func `random changes of block targets agree with an array`() throws {
    try randomChanges(BlockLocation.self, 40_000)
  }

  private func randomChanges<Value: RandomRunValue>(_ type: Value.Type, _ changeCount: Int) throws {
    try withSeededGenerator { generator in
      var model = RunMapModel<Value>(borders: (0...64).map { $0 })
      var copies: [RunMapModel<Value>] = []
      for change in 0..<changeCount {
        // Long phases of short ranges build many runs; long ranges take whole subtrees away.
        let longest: UInt64 = generator.oneIn(50) ? 64 : change / 2_000 % 2 == 0 ? 3 : 12
        let cells = generator.range(below: 64, longest: longest)
        let range = Int(cells.lowerBound)..<Int(cells.upperBound)
        model.replace(range, with: generator.oneIn(3) ? nil : .random(from: cells.lowerBound, &generator))
        try model.check()
        try model.checkLookUps(in: range)
        try model.checkPieces(in: range, limit: 1 + generator.number(below: 4))
        // Copies from different times share nodes with the map and with each other.
        if generator.oneIn(40) {
          for copy in copies { try copy.check() }
          if copies.count == 5 { copies.remove(at: generator.number(below: 5)) }
          copies.append(model)
        }
        // A change to a copy must not show in the map, either.
        if !copies.isEmpty, generator.oneIn(10) {
          let index = generator.number(below: copies.count)
          copies[index].replace(range, with: .random(from: cells.lowerBound, &generator))
          try copies[index].check()
          try model.check()
        }
      }
    }
  }

  @Test func `ranges as long as all positions agree with an array`() throws {
    let borders: [UInt64] = [
      0, 1, 2, 1 << 20, 1 << 32, (1 << 32) + 1, 1 << 52, 1 << 62, 1 << 63, (1 << 63) + 1, .max - 1000, .max - 3,
      .max - 2,
      .max - 1, .max,
    ]
    try withSeededGenerator { generator in
      var model = RunMapModel<Place>(borders: borders)
      for _ in 0..<5_000 {
        let cells = generator.range(below: UInt64(borders.count - 1), longest: 14)
        let range = Int(cells.lowerBound)..<Int(cells.upperBound)
        model.replace(
          range, with: generator.oneIn(3) ? nil : .random(from: borders[range.lowerBound], &generator))
        try model.check()
        try model.checkLookUps(in: range)
        try model.checkPieces(in: range, limit: 20)
      }
    }
  }

  @Test func `no run is at the last number of all`() {
    var map = RunMap<Colour>()
    map.replace(0..<UInt64.max, with: Colour(number: 1))
    #expect(map.run(at: .max - 1) == Run(0..<UInt64.max, Colour(number: 1)))
    #expect(map.run(at: .max) == nil)
    #expect(map.firstRun(endingAfter: .max) == nil)
  }

  /// The order in which many runs come or go.
  enum Order: CaseIterable {
    case ascending, descending, inside, random

    func apply(_ count: Int, _ generator: inout SeededGenerator) -> [Int] {
      switch self {
      case .ascending: Array(0..<count)
      case .descending: (0..<count).reversed()
      // From the middle outwards.
      case .inside: (0..<count).map { count / 2 + ($0 % 2 == 0 ? $0 / 2 : -1 - $0 / 2) }
      case .random: (0..<count).shuffled(using: &generator)
      }
    }
  }

  @Test(arguments: Order.allCases, Order.allCases)
  func `a map grows deep and shrinks to nothing in every order`(growing: Order, shrinking: Order) throws {
    try withSeededGenerator { generator in
      let count = 1_000
      var model = RunMapModel<Place>(borders: (0...2 * UInt64(count)).map { $0 })
      for index in growing.apply(count, &generator) { model.replace(2 * index..<2 * index + 1, with: Place(number: 0)) }
      try model.check()
      let full = model
      for (step, index) in shrinking.apply(count, &generator).enumerated() {
        model.replace(2 * index..<2 * index + 1, with: nil)
        if step % 50 == 0 || step > count - 10 { try model.check() }
      }
      #expect(model.map.isEmpty)
      try full.check()
    }
  }

  @Test func `one replacement takes any part of a deep map away`() throws {
    let count = 300
    var model = RunMapModel<Place>(borders: (0...2 * UInt64(count)).map { $0 })
    for index in 0..<count { model.replace(2 * index..<2 * index + 1, with: Place(number: 0)) }
    for start in stride(from: 0, to: 2 * count, by: 7) {
      for end in stride(from: start + 1, through: 2 * count, by: 41) {
        var gap = model
        gap.replace(start..<end, with: nil)
        try gap.check()
        var run = model
        run.replace(start..<end, with: Place(number: 5000))
        try run.check()
      }
    }
    model.replace(0..<2 * count, with: nil)
    #expect(model.map.isEmpty)
  }
}
