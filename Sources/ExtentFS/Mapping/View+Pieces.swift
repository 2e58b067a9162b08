internal import Extents

/// Where a piece of a volume is.
enum Place: Equatable {
  /// Contiguous blocks on the medium, from this one on.
  case physical(UInt64)
  /// Zeroes that are promised space.
  case reservedZeroes
  /// Nothing; reads as zeroes.
  case hole
}

extension View {
  /// Calls `body` with consecutive pieces that cover `blocks`, in order, until it returns false. Waits for no write, but may read
  /// nodes of the tree from the device, where neither delta says anything.
  func forEachPiece(
    in blocks: Range<UInt64>, _ nodes: NodeCache,
    _ body: (Range<UInt64>, Place) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    var goesOn = true
    try active.forEachPiece(in: blocks) { piece, target throws(ExtentFSError) in
      if let target {
        goesOn = try body(piece, Place(target))
      } else if let frozen {
        try frozen.forEachPiece(in: piece) { piece, target throws(ExtentFSError) in
          if let target {
            goesOn = try body(piece, Place(target))
          } else {
            goesOn = try base.forEachPiece(in: piece, nodes, body)
          }
          return goesOn
        }
      } else {
        goesOn = try base.forEachPiece(in: piece, nodes, body)
      }
      return goesOn
    }
  }

  /// How many of `blocks`, from the first one on, are reserved zeroes.
  func reservedCount(
    startingAt blocks: Range<UInt64>, _ nodes: NodeCache
  ) throws(ExtentFSError) -> UInt64 {
    var count: UInt64 = 0
    try forEachPiece(in: blocks, nodes) { piece, place throws(ExtentFSError) in
      guard place == .reservedZeroes else { return false }
      count += piece.upperBound - piece.lowerBound
      return true
    }
    return count
  }

  /// Where the one block `block` is.
  func place(of block: UInt64, _ nodes: NodeCache) throws(ExtentFSError) -> Place {
    var found = Place.hole
    try forEachPiece(in: block..<block + 1, nodes) { _, place in
      found = place
      return false
    }
    return found
  }
}

extension Place {
  fileprivate init(_ target: DeltaTarget) {
    self =
      if let block = target.physicalBlock {
        .physical(block)
      } else {
        target == .hole ? .hole : .reservedZeroes
      }
  }
}
