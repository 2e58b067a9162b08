internal import Bytes
internal import Devices
internal import Extents

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
        // What lies behind the device's end, as a damaged mapping says, is for a read to find out.
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

  /// Calls `body` with maximal ranges that cover `range`, in order, until it returns false: each of one kind, and of data each
  /// in one piece on the device, with the offset in bytes where that begins. Waits for no write.
  package func forEachMapping(
    in range: Range<UInt64>, _ body: (Range<UInt64>, ExtentKind, UInt64?) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    try state.withView { view throws(ExtentFSError) in
      let range = range.clamped(to: 0..<view.byteCount)
      guard !range.isEmpty else { return }
      var pending: (bytes: Range<UInt64>, kind: ExtentKind, offset: UInt64?)?
      var stopped = false
      try view.forEachPiece(in: blockSize.blocks(touching: range), engine.nodes) {
        blocks, place throws(ExtentFSError) in
        let bytes = blockSize.bytes(of: blocks, within: range)
        var (kind, offset): (ExtentKind, UInt64?) = (.hole, nil)
        switch place {
        case .physical(let block):
          (kind, offset) = (
            .data, blockSize.offset(of: block) + (bytes.lowerBound - blockSize.offset(of: blocks.lowerBound))
          )
        case .reservedZeroes: kind = .reservedZeroes
        case .hole: break
        }
        if let before = pending, before.kind == kind, before.offset.map({ $0 + before.bytes.length }) == offset {
          pending = (before.bytes.lowerBound..<bytes.upperBound, kind, before.offset)
          return true
        }
        if let before = pending { stopped = try !body(before.bytes, before.kind, before.offset) }
        pending = (bytes, kind, offset)
        return !stopped
      }
      if !stopped, let last = pending { _ = try body(last.bytes, last.kind, last.offset) }
    }
  }
}
