internal import BlockStores
internal import Bytes
internal import Devices

extension DiskVolume {
  /// Calls `body` with maximal ranges that cover `range`, in order, until it returns false: each of one kind, and of data each
  /// in one piece on the device, with the offset in bytes where that begins. Takes no lock.
  @_specialize(where Device == FileDevice)
  package func forEachMapping(
    in range: Range<UInt64>, _ body: (Range<UInt64>, ExtentKind, UInt64?) throws(ExtentFSError) -> Bool
  ) throws(ExtentFSError) {
    let view = current.load(ordering: .acquiring)
    defer { withExtendedLifetime(view) {} }
    let range = range.clamped(to: 0..<view.byteCount)
    guard !range.isEmpty else { return }
    var pending: (bytes: Range<UInt64>, kind: ExtentKind, offset: UInt64?)?
    var stopped = false
    try view.forEachPiece(in: blockSize.blocks(touching: range), engine.nodes) { blocks, place throws(ExtentFSError) in
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
