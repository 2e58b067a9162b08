internal import Bytes
internal import Extents

/// Data may lie where nobody can say any more that it does: in a group whose bitmap cannot be read, or in blocks whose checksums stand
/// beside others that cannot be read. Blocks are no longer taken there, but some were before it was found out, or are named by
/// the journal of a process that died. A checkpoint moves what they hold, whose checksums are known, before trees lead to it.
extension CheckpointRunner {
  /// Moves the data of what is about to be merged away from places that cannot be written down.
  func relocate(
    _ frozen: inout [FrozenVolume], _ writer: CheckpointWriter
  ) throws(ExtentFSError) {
    // What was moved may have come to another such place.
    while true {
      let lost = try checksums.completeDirty()
      for blocks in lost { space.withhold(blocks) }
      guard !lost.isEmpty || space.hasUnreadableGroups else { return }
      var hasMoved = false
      for index in frozen.indices where try relocate(&frozen[index], from: lost, writer) { hasMoved = true }
      guard hasMoved else { return }
    }
  }

  /// Moves what one volume has in the blocks `lost`, and in groups that cannot be read; false where it has nothing there.
  private func relocate(
    _ part: inout FrozenVolume, from lost: [Range<UInt64>], _ writer: CheckpointWriter
  ) throws(ExtentFSError) -> Bool {
    var moves: [(logical: Range<UInt64>, block: UInt64)] = []
    try part.overlay.forEachRun(in: 0..<UInt64.max) { run throws(ExtentFSError) in
      guard let block = run.value.physicalBlock else { return true }
      let start = run.positions.lowerBound
      let blocks = block..<block + run.positions.length
      if try !space.canChange(PhysicalRun(block: block, count: blocks.length)) {
        moves.append((run.positions, block))
        return true
      }
      for range in lost {
        let hit = range.clamped(to: blocks)
        guard !hit.isEmpty else { continue }
        moves.append((start + (hit.lowerBound - block)..<start + (hit.upperBound - block), hit.lowerBound))
      }
      return true
    }
    for (logical, block) in moves {
      var next = logical
      while !next.isEmpty {
        let old = block + (next.lowerBound - logical.lowerBound)
        let count = try move(next, from: old, of: part.volume, &part.overlay, writer)
        part.superseded.append(PhysicalRun(block: old, count: count))
        next = next.lowerBound + count..<next.upperBound
      }
    }
    return !moves.isEmpty
  }

  /// Moves the first of the logical `blocks`, which lie from `block` on, and returns how many.
  private func move(
    _ blocks: Range<UInt64>, from block: UInt64, of volume: OpenVolume, _ overlay: inout Overlay,
    _ writer: CheckpointWriter
  ) throws(ExtentFSError) -> UInt64 {
    let run = try writer.allocate(upTo: min(blocks.length, JournalRing.recordBlocksMax))
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: Int(run.count) * blockSize.byteCount, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    try unsafe self.blocks.read(buffer, from: block, for: volume, at: blocks.lowerBound)
    try unsafe self.blocks.withChecksums(of: UnsafeRawBufferPointer(buffer)) { sums throws(ExtentFSError) in
      try unsafe self.blocks.write(UnsafeRawBufferPointer(buffer), sums, in: run)
    }
    overlay.replace(blocks.lowerBound..<blocks.lowerBound + run.count, with: .physical(run.block))
    return run.count
  }
}
