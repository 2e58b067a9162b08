internal import Bytes
package import Extents

extension Engine {
  /// Calls `body` with maximal ranges of bytes in which `new` differs from `old`, in order and inside `range`, until it returns
  /// false. Ranges are whole blocks, but for the ends of `range` and of the volume. What `old` does not reach to is zeroes.
  ///
  /// It compares the trees as of the last checkpoint: what was written since is not seen. So both have to be volumes whose overlays are
  /// empty. Snapshots are, since the checkpoint that makes one merges all that it holds, and nothing is written to one; who wants
  /// another volume compared makes a snapshot of it. The cost follows what differs; see ``TreeDiff``. Waits for no write; any thread.
  ///
  /// - Throws: `.damaged` and `.device` where a tree cannot be read; `.damaged` for a volume that has changes in the journal of a
  ///   store which is too damaged to merge them; and what `body` throws.
  package func forEachDifference(
    from old: DiskVolume, to new: DiskVolume, in range: Range<UInt64>,
    _ body: (Range<UInt64>, RangeContent) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    try old.state.withView { before throws(ExtentFSError) in
      try new.state.withView { after throws(ExtentFSError) in
        try requireComparable(old.state, before)
        try requireComparable(new.state, after)
        let range = range.clamped(to: 0..<after.byteCount)
        try TreeDiff.forEachDifference(
          from: before.base, to: after.base, in: blockSize.blocks(touching: range), nodes
        ) { blocks, kind throws(ExtentFSError) in
          try body(blockSize.bytes(of: blocks, within: range), kind)
        }
      }
    }
  }

  private func requireComparable(_ volume: OpenVolume, _ view: View) throws(ExtentFSError) {
    if view.access == .deleted { throw volume.gone }
    // What cannot be merged would look as if it had not changed.
    if volume.isDamaged { throw volume.incomplete }
    guard mergesJournal || view.active.isEmpty else {
      throw ExtentFSError(
        .damaged,
        "volume '\(volume.name)' has changes in the journal, which this store is too damaged to merge; so it is not compared"
      ).naming(volume: volume.name)
    }
  }
}
