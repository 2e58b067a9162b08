internal import Atomics
internal import Bytes
package import Extents

extension DiskVolume {
  /// Fills `buffer` with the bytes from `offset` on. Waits for no write (see ``DiskVolume``); every block read from the
  /// device is checked.
  ///
  /// - Throws: `.outOfRange` where the range passes the volume's end, `.deleted`; `.damaged` where a block does not have its
  ///   checksum, with `buffer` undefined; `.device`.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ExtentFSError) {
    try state.withView { view throws(ExtentFSError) in
      let range = try checkedRange(offset, buffer.count, in: view)
      let blocks = blockSize.blocks(touching: range)
      do throws(ExtentFSError) {
        try view.forEachPiece(in: blocks, engine.nodes) { blocks, location throws(ExtentFSError) in
          let bytes = blockSize.bytes(of: blocks, within: range)
          // Safe: `bytes` lies in `range`, which is as long as `buffer`.
          let part = unsafe UnsafeMutableRawBufferPointer(
            rebasing: buffer[Int(bytes.lowerBound - offset)..<Int(bytes.upperBound - offset)])
          if let block = location.physicalBlock {
            try unsafe readBlocks(into: part, from: block, bytes, blocks.lowerBound)
          } else {
            unsafe part.fillWithZeroes()
          }
          return true
        }
      } catch {
        state.noteUnreadable(error)
        throw error
      }
    }
  }

  /// Calls `body` with maximal ranges of one kind that cover `range`, in order, until it returns false. Waits for no write.
  ///
  /// - Throws: `.outOfRange` where the range begins behind the volume's end, `.deleted`; `.damaged`, `.device`.
  package func forEachExtent(
    in range: Range<UInt64>, _ body: (Range<UInt64>, RangeContent) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    try state.withView { view throws(ExtentFSError) in
      if view.access == .deleted { throw state.gone }
      guard !range.isEmpty else { return }
      // An answer that ends with the volume is a good one, and an empty one is none.
      guard range.lowerBound < view.byteCount else { throw state.pastEnd(range, in: view) }
      let range = range.clamped(to: 0..<view.byteCount)
      var joiner = RunJoiner<RangeContent>()
      try view.forEachPiece(in: blockSize.blocks(touching: range), engine.nodes) {
        blocks, location throws(ExtentFSError) in
        try joiner.append(blockSize.bytes(of: blocks, within: range), location.content, body)
      }
      try joiner.end(body)
    }
  }

  /// The `byteCount` bytes from `offset` on, which must lie in the volume.
  func checkedRange(_ offset: UInt64, _ byteCount: Int, in view: View) throws(ExtentFSError) -> Range<UInt64> {
    guard let range = Range(offset: offset, byteCount: byteCount) else {
      throw state.pastEnd(offset..<UInt64.max, in: view)
    }
    guard range.upperBound <= view.byteCount else { throw state.pastEnd(range, in: view) }
    return range
  }

  /// Reads the logical `bytes` into `buffer` from consecutive blocks, of which `block` stands for the logical `first`.
  private func readBlocks(
    into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, _ bytes: Range<UInt64>, _ first: UInt64
  ) throws(ExtentFSError) {
    let whole = blockSize.blocks(inside: bytes)
    let start = bytes.lowerBound
    func physical(_ logical: UInt64) -> UInt64 { block + (logical - first) }
    if !whole.isEmpty {
      let middle = blockSize.offset(of: whole.lowerBound)..<blockSize.offset(of: whole.upperBound)
      // Safe: `middle` lies in `bytes`, which is as long as `buffer`.
      let part = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(middle.lowerBound - start)..<Int(middle.upperBound - start)])
      try unsafe engine.blocks.read(part, from: physical(whole.lowerBound), for: state, at: whole.lowerBound)
    }
    for edge in BlockEdges(of: bytes, blockSize) {
      let wanted = blockSize.bytes(of: edge..<edge + 1, within: bytes)
      try unsafe engine.blocks.withScratchBlock { scratch throws(ExtentFSError) in
        try unsafe engine.blocks.read(scratch, from: physical(edge), for: state, at: edge)
        let skip = Int(wanted.lowerBound - blockSize.offset(of: edge))
        // Safe: `wanted` lies in the block and in `bytes`.
        unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[Int(wanted.lowerBound - start)...]).copyMemory(
          from: UnsafeRawBufferPointer(rebasing: scratch[skip..<skip + Int(wanted.length)]))
      }
    }
  }
}
