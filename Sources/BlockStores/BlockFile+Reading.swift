internal import Atomics
internal import Bytes
internal import Extents
extension BlockFile {
  /// Reads into `buffer` from `offset` on and returns how many bytes there were: fewer than `buffer` holds only where the
  /// file ends, 0 at its end and behind. The rest of `buffer` keeps what it held. Takes no lock and allocates nothing.
  ///
  /// - Throws: `.deviceFailed` where the device fails; `buffer` is then undefined.
  public func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(StoreError) -> Int {
    let view = current.load(ordering: .acquiring)
    // The view keeps the blocks it maps from being used for anything else.
    defer { withExtendedLifetime(view) {} }
    let map = view.map
    guard offset < map.byteCount else { return 0 }
    let count = Int(min(UInt64(buffer.count), map.byteCount - offset))
    let range = offset..<offset + UInt64(count)
    try map.forEachPiece(in: blockSize.blocks(touching: range)) { blocks, target throws(StoreError) in
      let bytes = blockSize.bytes(of: blocks, within: range)
      // Safe: `bytes` lies in `range`, which is as long as the part of `buffer` in use.
      let part = unsafe UnsafeMutableRawBufferPointer(
        rebasing: buffer[Int(bytes.lowerBound - offset)..<Int(bytes.upperBound - offset)])
      if let block = target?.physicalBlock {
        try unsafe backing.read(
          into: part, from: block, skip: Int(bytes.lowerBound - blockSize.offset(of: blocks.lowerBound)))
      } else {
        unsafe part.initializeMemory(as: UInt8.self, repeating: 0)
      }
      return true
    }
    return count
  }

  /// Calls `body` with maximal ranges of one kind that cover the part of `range` inside the file, in order, until it
  /// returns false. Takes no lock. O(log n + extents in the range).
  public func forEachExtent<Failure: Error>(
    in range: Range<UInt64>, _ body: (Range<UInt64>, RangeContent) throws(Failure) -> Bool
  ) throws(Failure) {
    let map = current.load(ordering: .acquiring).map
    let range = range.clamped(to: 0..<map.byteCount)
    guard !range.isEmpty else { return }
    var joiner = RunJoiner<RangeContent>()
    try map.forEachPiece(in: blockSize.blocks(touching: range)) { blocks, target throws(Failure) in
      try joiner.append(blockSize.bytes(of: blocks, within: range), (target ?? .hole).content, body)
    }
    try joiner.end(body)
  }
}
