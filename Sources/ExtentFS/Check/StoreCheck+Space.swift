internal import Extents

extension StoreCheck {
  /// How many runs of blocks with a wrong number of references are named. Where a part of a tree is missing there are many.
  private static var wantedCountMax: Int { 32 }

  /// Compares the bitmaps with the blocks that were met, and both with the accounts.
  func checkBitmaps() {
    var storedCount: UInt64 = 0
    for (number, group) in census.groups.sorted(by: { $0.key < $1.key }) {
      guard let stored = group.stored else { continue }
      let record = records[number] ?? GroupRecord()
      storedCount += UInt64(stored.setCount) - min(UInt64(stored.setCount), StoreGeometry.metadataBlocksPerGroup)
      if stored.count - stored.setCount != Int(record.freeCount) {
        report.note(
          .number, "group \(number)",
          "counts \(record.freeCount) free blocks, and its bitmap has \(stored.count - stored.setCount)"
        )
      }
      var expected = group.met
      expected.insert(0..<Int(StoreGeometry.metadataBlocksPerGroup))
      guard stored != expected else { continue }
      let first = geometry.firstBlock(ofGroup: number)
      for (wrong, text) in [
        (stored.subtracting(expected), "is marked as used, and nothing references it"),
        (expected.subtracting(stored), "is marked as free, and something references it"),
      ] {
        guard let index = wrong.firstSet(from: 0, before: wrong.count) else { continue }
        let others = wrong.setCount > 1 ? ", and so are \(wrong.setCount - 1) others of the group" : ""
        report.note(.bitmap, "group \(number)", "block \(first + UInt64(index)) \(text)\(others)")
      }
    }
    if report.totals.used != storedCount, census.groups.values.allSatisfy({ $0.stored != nil }) {
      report.note(
        .number, "", "the accounts add up to \(report.totals.used) blocks, and the bitmaps have \(storedCount) in use")
    }
  }

  /// Compares the tree of shared runs with the places that were found to lead to each block.
  func checkReferences() throws(ExtentFSError) {
    var differences: [(blocks: Range<UInt64>, said: UInt64, found: UInt64)] = []
    var moreCount = 0
    census.forEachDifference(from: table) { blocks, said, found in
      if differences.count < Self.wantedCountMax { differences.append((blocks, said, found)) } else { moreCount += 1 }
      return true
    }
    guard !differences.isEmpty else { return }
    let finder = BlockFinder(nodes, differences.map(\.blocks))
    try finder.look(in: inodes)
    for (index, (blocks, said, found)) in differences.enumerated() {
      let what =
        blocks.count == 1 ? "block \(blocks.lowerBound)" : "blocks \(blocks.lowerBound) to \(blocks.upperBound - 1)"
      let places = finder.places[index].map(\.path)
      let text = places.isEmpty ? "" : ": " + places.joined(separator: "; ")
      report.note(.references, what, "\(found) references were found, and the refcount tree says \(said)\(text)")
    }
    if moreCount > 0 {
      report.note(.references, "", "the refcount tree is wrong about \(moreCount) more runs of blocks")
    }
  }
}
