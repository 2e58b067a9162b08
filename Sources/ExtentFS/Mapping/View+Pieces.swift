internal import Extents

extension View {
  /// Calls `body` with consecutive pieces that cover `blocks`, in order, until it returns false. Waits for no write, but may read
  /// nodes of the tree from the device, where neither overlay says anything.
  func forEachPiece(
    in blocks: Range<UInt64>, _ nodes: NodeCache,
    _ body: (Range<UInt64>, BlockLocation) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var shouldContinue = true
    try active.forEachPiece(in: blocks) { piece, target throws(ExtentFSError) in
      if let target {
        shouldContinue = try body(piece, target)
      } else if let frozen {
        try frozen.forEachPiece(in: piece) { piece, target throws(ExtentFSError) in
          if let target {
            shouldContinue = try body(piece, target)
          } else {
            shouldContinue = try base.forEachPiece(in: piece, nodes, body)
          }
          return shouldContinue
        }
      } else {
        shouldContinue = try base.forEachPiece(in: piece, nodes, body)
      }
      return shouldContinue
    }
  }

  /// How many of `blocks`, from the first one on, are reserved zeroes.
  func reservedCount(
    startingAt blocks: Range<UInt64>, _ nodes: NodeCache
  ) throws(ExtentFSError) -> UInt64 {
    var count: UInt64 = 0
    try forEachPiece(in: blocks, nodes) { piece, location throws(ExtentFSError) in
      guard location == .unwritten else { return false }
      count += piece.upperBound - piece.lowerBound
      return true
    }
    return count
  }

  /// Where the one block `block` is.
  func location(of block: UInt64, _ nodes: NodeCache) throws(ExtentFSError) -> BlockLocation {
    var found = BlockLocation.hole
    try forEachPiece(in: block..<block + 1, nodes) { _, location in
      found = location
      return false
    }
    return found
  }
}
