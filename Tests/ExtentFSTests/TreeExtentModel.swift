import Extents
import LacunaTestSupport

@testable import ExtentFS

/// An extent tree beside what it must hold: a target or none for each logical block, in a plain array.
struct TreeExtentModel {
  let store: TreeTestStore
  private(set) var root = TreeRoot.empty
  private(set) var cells: [BlockLocation?]
  private(set) var mapped: Int64 = 0
  private(set) var reserved: Int64 = 0
  static let owner: UInt64 = 7

  init(cellCount: Int, _ store: TreeTestStore) {
    self.store = store
    cells = Array(repeating: nil, count: cellCount)
  }

  mutating func merge(_ edits: [ExtentEdit]) throws {
    let root = self.root
    let result = try store.merge { try $0.mergeExtents(root: root, owner: Self.owner, edits: edits) }
    var replaced: [UInt64] = []
    for edit in edits {
      for (index, block) in edit.blocks.enumerated() {
        let new = edit.target?.advanced(by: UInt64(index))
        if let old = cells[Int(block)], old != new, let physical = old.physicalBlock { replaced.append(physical) }
        cells[Int(block)] = new
      }
    }
    let told = store.replacedRuns.flatMap { Array($0.blocks) }
    try LacunaTestSupport.check(told == replaced, "replaced: \(told), should be \(replaced)")
    self.root = result.root
    mapped += result.mappedBlocks
    reserved += result.reservedBlocks
  }

  /// Compares the tree's structure and all of its extents with the array.
  func check(throughCache: Bool = true) throws {
    let (leaves, blocks) = try store.walk(root, .extents, owner: Self.owner, throughCache: throughCache)
    try LacunaTestSupport.check(blocks == store.used, "the tree has \(blocks), in use are \(store.used)")
    var found: [BlockLocation?] = Array(repeating: nil, count: cells.count)
    for leaf in leaves {
      for index in 0..<leaf.count {
        let extent = leaf.extent(at: index)
        for (offset, block) in extent.blocks.enumerated() {
          found[Int(block)] = extent.target.advanced(by: UInt64(offset))
        }
        if index > 0, leaf.extent(at: index - 1).joined(with: extent) != nil {
          throw CheckFailure("two extents at \(extent.logical) are one")
        }
      }
    }
    try LacunaTestSupport.check(found == cells, "the extents differ from the array")
    let isMapped = cells.count { $0?.physicalBlock != nil }
    let isReserved = cells.count { $0 == .unwritten }
    try LacunaTestSupport.check(mapped == Int64(isMapped), "\(mapped) mapped blocks, should be \(isMapped)")
    try LacunaTestSupport.check(reserved == Int64(isReserved), "\(reserved) reserved, should be \(isReserved)")
  }

  /// Compares what look-ups in `range` find with the array.
  func checkLookUps(in range: Range<Int>) throws {
    let reader = store.cache.reader(root, .extents, owner: Self.owner)
    var found: [BlockLocation?] = Array(repeating: nil, count: cells.count)
    var last = range.lowerBound
    try reader.forEachExtent(in: UInt64(range.lowerBound)..<UInt64(range.upperBound)) { extent in
      if extent.logical < last { found = [] }
      last = Int(extent.blocks.upperBound)
      for (offset, block) in extent.blocks.enumerated() {
        found[Int(block)] = extent.target.advanced(by: UInt64(offset))
      }
      return true
    }
    try LacunaTestSupport.check(found[range] == cells[range], "the extents in \(range) differ from the array")
    try LacunaTestSupport.check(last <= range.upperBound, "an extent reaches beyond \(range)")
    let extent = try reader.extent(holding: UInt64(range.lowerBound))
    let target = extent?.target.advanced(by: UInt64(range.lowerBound) - (extent?.logical ?? 0))
    try LacunaTestSupport.check(target == cells[range.lowerBound], "look-up of \(range.lowerBound)")
  }

  /// Up to `count` random edits in order, of up to `longest` blocks, all inside `window`.
  func randomEdits(
    _ count: Int, longest: UInt64, in window: Range<UInt64>, _ generator: inout SeededGenerator
  ) -> [ExtentEdit] {
    var edits: [ExtentEdit] = []
    var start = window.lowerBound
    for _ in 0..<count {
      start += generator.number(below: 2 * longest)
      let end = min(window.upperBound, start + 1 + generator.number(below: longest))
      guard start < end else { break }
      let target: BlockLocation? =
        switch generator.number(below: 8) {
        case 0, 1: nil
        case 2: .unwritten
        // Often what continues a neighbour.
        case 3: .physical(1_000_000 + start)
        default: .physical(1 + generator.next() >> 20)
        }
      edits.append(ExtentEdit(start..<end, target))
      start = end
    }
    return edits
  }
}
