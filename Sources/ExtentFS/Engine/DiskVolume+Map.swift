internal import Bytes
internal import Devices
package import Extents

extension DiskVolume {
  /// How much data one request reads ahead: more than clients ask for at once, and less than it takes to fill a memory or to keep
  /// a device busy for long.
  package static var readAheadByteCountMax: UInt64 { 32 << 20 }

  /// Begins to bring the data in `range` into the kernel's memory, the first `readAheadByteCountMax` bytes of it, and does not wait
  /// for it. What the mapping has not in memory is read. Waits for no write.
  ///
  /// - Throws: `.outOfRange` where the range passes the volume's end, `.deleted`; `.damaged`, `.device` where the mapping cannot be
  ///   read. That the data can be read is not found out.
  package func readAhead(in range: Range<UInt64>) throws(ExtentFSError) {
    try state.withView { view throws(ExtentFSError) in
      guard range.upperBound <= view.byteCount else { throw state.pastEnd(range, in: view) }
    }
    var left = Self.readAheadByteCountMax
    do throws(ExtentFSError) {
      try forEachMapping(in: range) { bytes, _, offset in
        // What is past the end of the device, as a damaged mapping says, is for a read to find out.
        guard let offset, offset < engine.device.byteCount else { return true }
        let count = min(bytes.length, left)
        engine.device.readAhead(offset..<offset + count)
        left -= count
        return left > 0
      }
    } catch {
      state.noteUnreadable(error)
      throw error
    }
  }

  /// Calls `body` with maximal ranges that cover `range`, in order, until it returns false: each of one content, and of data each
  /// in one piece on the device, with the offset in bytes where that begins. Waits for no write.
  package func forEachMapping(
    in range: Range<UInt64>, _ body: (Range<UInt64>, RangeContent, UInt64?) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    func tell(_ bytes: Range<UInt64>, _ mapped: MappedBytes) throws(ExtentFSError) -> Bool {
      try body(bytes, mapped.content, mapped.offset)
    }
    try state.withView { view throws(ExtentFSError) in
      let range = range.clamped(to: 0..<view.byteCount)
      guard !range.isEmpty else { return }
      var joiner = RunJoiner<MappedBytes>()
      try view.forEachPiece(in: blockSize.blocks(touching: range), engine.nodes) {
        blocks, location throws(ExtentFSError) in
        let bytes = blockSize.bytes(of: blocks, within: range)
        let offset = location.physicalBlock.map { block in
          blockSize.offset(of: block) + (bytes.lowerBound - blockSize.offset(of: blocks.lowerBound))
        }
        return try joiner.append(bytes, MappedBytes(content: location.content, offset: offset), tell)
      }
      try joiner.end(tell)
    }
  }
}

/// What bytes of a volume are, and of data where it begins on the device.
private struct MappedBytes: RunValue {
  var content: RangeContent
  var offset: UInt64?

  func advanced(by count: UInt64) -> MappedBytes { MappedBytes(content: content, offset: offset.map { $0 + count }) }
}
