internal import Bytes
internal import Devices

extension StoreCheck {
  /// Checks that the rest of a volume's last block, from the volume's last byte on, is zeroes: clients read it once the volume
  /// grows. The caller holds the point in time whose trees it walks, so that the block is not used for anything else meanwhile.
  func checkEnd(of record: InodeRecord) throws(ExtentFSError) {
    let blockSize = geometry.blockSize
    let used = Int(record.byteCount & UInt64(blockSize.byteCount - 1))
    guard used > 0, record.kind != .deleted else { return }
    let last = blockSize.blocks(toHold: record.byteCount) - 1
    do throws(ExtentFSError) {
      var block: UInt64?
      let base = ExtentBase(inline: record.inlineExtents, root: record.extents)
      _ = try base.forEachPiece(in: last..<last + 1, nodes) { _, location in
        block = location.physicalBlock
        return true
      }
      guard let block, block < device.byteCount >> blockSize.shift else { return }
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 4096)
      defer { unsafe buffer.deallocate() }
      do throws(DeviceError) {
        try unsafe device.read(into: buffer, at: blockSize.offset(of: block))
      } catch {
        throw ExtentFSError(error)
      }
      // Safe: `used` is less than a block.
      guard let index = unsafe buffer[used...].firstIndex(where: { $0 != 0 }) else { return }
      report.note(
        .tail, label, "block \(block) has bytes past the volume's end that are not zero, from byte \(index) on")
    } catch {
      // A node that cannot be read was told of by the walk.
      guard error.code == .damaged else { throw error }
    }
  }
}
