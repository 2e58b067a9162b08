internal import Bytes
internal import Extents

extension DiskVolume {
  /// Makes `blocks` reserved zeroes. Without a look at the tree, as long as there is room for all of them. False as for `unmap`.
  func reserve(_ blocks: Range<UInt64>, in range: Range<UInt64>) throws(ExtentFSError) -> Bool {
    guard !blocks.isEmpty else { return true }
    // Nobody is promised space for what is thrown away.
    guard state.isJournaled else { return try unmap(blocks, in: range) }
    switch try reserve(blocks, in: range, promising: blocks.length, ifAsIn: nil) {
    case .done: return true
    case .hasChanged: return false
    case .noRoom: break
    }
    // Few or none of them may be new, and a checkpoint finds out how many promised ones others were counted for twice.
    try engine.checkpoint()
    while true {
      let (outcome, isNewest) = try state.withView { basis throws(ExtentFSError) in
        let count = try holeCount(in: blocks, of: basis)
        let outcome = try reserve(blocks, in: range, promising: count, ifAsIn: basis)
        return (outcome, state.isNewest(basis))
      }
      switch outcome {
      case .done: return true
      case .hasChanged: if isNewest { return false }
      case .noRoom:
        throw ExtentFSError(
          .outOfSpace, "volume '\(name)': the store has no room to reserve \(blocks.length) blocks of zeroes"
        ).naming(volume: name)
      }
    }
  }

  private enum Reservation { case done, hasChanged, noRoom }

  /// Makes `blocks` reserved zeroes, `count` of which are promised space by that, unless the view is no longer `basis`, or the
  /// volume has bytes in the blocks that are not in `range`.
  private func reserve(
    _ blocks: Range<UInt64>, in range: Range<UInt64>, promising count: UInt64, ifAsIn basis: View?
  ) throws(ExtentFSError) -> Reservation {
    var refusal = Reservation.hasChanged
    let outcome = try change(blocks, changing: range, to: .unwritten, ifAsIn: nil) {
      now throws(ExtentFSError) in
      if let basis, now !== basis { return .refused }
      guard engine.space.promise(count) else {
        refusal = .noRoom
        return .refused
      }
      do throws(ExtentFSError) {
        if try engine.journal.appendReserve(inode: inode, logical: blocks) != nil { return .appended }
      } catch {
        engine.space.takeBack(count)
        throw error
      }
      engine.space.takeBack(count)
      return .journalIsFull
    }
    switch outcome {
    case .done: return .done
    case .refused: return refusal
    default: return .hasChanged
    }
  }

  /// How many of `blocks` are holes in `view`: those that reserving would promise space to. The others have it.
  private func holeCount(in blocks: Range<UInt64>, of view: View) throws(ExtentFSError) -> UInt64 {
    var count: UInt64 = 0
    try view.forEachPiece(in: blocks, engine.nodes) { piece, location in
      if location == .hole { count += piece.length }
      return true
    }
    return count
  }
}
