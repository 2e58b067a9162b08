import Extents
import LacunaTestSupport

/// A run map beside what it must hold: one value or gap for each cell, in a plain array.
///
/// Cell `i` is the positions from `borders[i]` to `borders[i + 1]`. With borders 0, 1, 2 ... cells are positions; with others
/// a small array stands for as many positions as there are.
struct RunMapModel<Value: RunValue> {
  let borders: [UInt64]
  private(set) var map: RunMap<Value>
  private(set) var cells: [Value?]

  init(borders: [UInt64], maximumEntries: Int = 4) {
    self.borders = borders
    map = RunMap(capacity: NodeCapacity(runs: maximumEntries, children: maximumEntries))
    cells = Array(repeating: nil, count: borders.count - 1)
  }

  mutating func replace(_ range: Range<Int>, with value: Value?) {
    map.replace(positions(range), with: value)
    for cell in range { cells[cell] = value?.advanced(by: borders[cell] - borders[range.lowerBound]) }
  }

  /// Compares the map with the array, and looks at its structure.
  func check() throws {
    if let broken = map.checkInvariants() { throw CheckFailure("\(broken)\n\(map.runs)") }
    let expected = runs(of: cells, 0..<cells.count)
    let found = map.runs
    try LacunaTestSupport.check(found == expected, "the runs are \(found) and should be \(expected)")
    try LacunaTestSupport.check(map.isEmpty == expected.isEmpty, "isEmpty is \(map.isEmpty)")
  }

  /// Compares what look-ups at the cells of `range` find.
  func checkLookUps(in range: Range<Int>) throws {
    let all = runs(of: cells, 0..<cells.count)
    for position in [borders[range.lowerBound], borders[range.upperBound] - 1] {
      try expect(map.run(at: position), all.first { $0.positions.contains(position) }, "run(at: \(position))")
      try expect(
        map.firstRun(endingAfter: position), all.first { $0.positions.upperBound > position },
        "firstRun(endingAfter: \(position))")
    }
    var found: [Run<Value>] = []
    map.forEachRun(in: positions(range)) { run in
      found.append(run)
      return true
    }
    try expect(found, runs(of: cells, range), "forEachRun in \(positions(range))")
  }

  /// Compares the pieces that `range` falls into, with a stop after `limit` of them.
  func checkPieces(in range: Range<Int>, limit: Int) throws {
    var found: [Run<Value>?] = []
    var next = borders[range.lowerBound]
    map.forEachPiece(in: positions(range)) { piece, value in
      if piece.lowerBound != next || piece.isEmpty { found = [] }
      next = piece.upperBound
      found.append(value.map { Run(piece, $0) })
      return found.count < limit
    }
    var expected: [Run<Value>?] = []
    var end = borders[range.lowerBound]
    for run in runs(of: cells, range) {
      if run.positions.lowerBound > end { expected.append(nil) }
      expected.append(run)
      end = run.positions.upperBound
    }
    if end < borders[range.upperBound] { expected.append(nil) }
    try expect(found, Array(expected.prefix(limit)), "the first \(limit) pieces in \(positions(range))")
  }

  private func positions(_ range: Range<Int>) -> Range<UInt64> { borders[range.lowerBound]..<borders[range.upperBound] }

  /// The maximal runs of some cells.
  private func runs(of cells: [Value?], _ range: Range<Int>) -> [Run<Value>] {
    var runs: [Run<Value>] = []
    for cell in range {
      guard let value = cells[cell] else { continue }
      let (start, end) = (borders[cell], borders[cell + 1])
      if let last = runs.last, last.positions.upperBound == start,
        last.value.advanced(by: start - last.positions.lowerBound) == value
      {
        runs[runs.count - 1].positions = last.positions.lowerBound..<end
      } else {
        runs.append(Run(start..<end, value))
      }
    }
    return runs
  }

  private func expect<Answer: Equatable>(_ found: Answer, _ expected: Answer, _ words: String) throws {
    try LacunaTestSupport.check(found == expected, "\(words) gives \(found) and should give \(expected)")
  }
}

/// A value that names a place and moves on.
struct Place: RunValue {
  var number: UInt64
  func advanced(by count: UInt64) -> Place { Place(number: number &+ count) }
}

/// A value that is the same everywhere.
struct Colour: RunValue {
  var number: UInt64
  func advanced(by count: UInt64) -> Colour { self }
}

/// Values that often continue each other.
protocol RandomRunValue: RunValue {
  /// A value for a run that begins at `start`: one of few, and such that runs side by side often are one.
  static func random(from start: UInt64, _ generator: inout SeededGenerator) -> Self
}

extension Place: RandomRunValue {
  static func random(from start: UInt64, _ generator: inout SeededGenerator) -> Place {
    Place(number: start &+ 1000 &* UInt64(generator.number(below: 3)))
  }
}

extension Colour: RandomRunValue {
  static func random(from start: UInt64, _ generator: inout SeededGenerator) -> Colour {
    Colour(number: UInt64(generator.number(below: 3)))
  }
}

extension BlockLocation: RandomRunValue {
  static func random(from start: UInt64, _ generator: inout SeededGenerator) -> BlockLocation {
    generator.oneIn(3) ? .unwritten : .physical(start + 1000 * UInt64(generator.number(below: 3)))
  }
}
