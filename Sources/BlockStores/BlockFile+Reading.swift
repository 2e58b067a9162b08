internal import Atomics
internal import Bytes
internal import Extents

/// What lies in a range of a file.
public enum FileExtentKind: Sendable, Hashable {
  /// Blocks with bytes in them.
  case data
  /// Zeroes for which space is promised.
  case reservedZeroes
  /// Nothing; reads as zeroes.
  case hole
}

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
    in range: Range<UInt64>, _ body: (Range<UInt64>, FileExtentKind) throws(Failure) -> Bool
  ) throws(Failure) {
    let map = current.load(ordering: .acquiring).map
    let range = range.clamped(to: 0..<map.byteCount)
    guard !range.isEmpty else { return }
    var pending: (bytes: Range<UInt64>, kind: FileExtentKind)?
    var stopped = false
    try map.forEachPiece(in: blockSize.blocks(touching: range)) { blocks, target throws(Failure) in
      let bytes = blockSize.bytes(of: blocks, within: range)
      let kind: FileExtentKind =
        switch target {
        case nil: .hole
        case let target?: target.physicalBlock == nil ? .reservedZeroes : .data
        }
      if let before = pending, before.kind == kind {
        pending = (before.bytes.lowerBound..<bytes.upperBound, kind)
        return true
      }
      if let before = pending { stopped = try !body(before.bytes, before.kind) }
      pending = (bytes, kind)
      return !stopped
    }
    if !stopped, let last = pending { _ = try body(last.bytes, last.kind) }
  }
}
