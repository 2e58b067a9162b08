internal import Bytes
internal import Devices
internal import Glibc

extension BlockDevice {
  /// Reads a block whose ``MetadataChecksum`` is in its parent, and hands its bytes to `body` where that is right.
  ///
  /// - Throws: `ExtentFSError` with `damaged` where it is not, and with `device` where the device fails.
  func withMetadataBlock<Result>(
    _ block: UInt64, _ blockSize: BlockSize, checksum: UInt32, _ body: (UnsafeRawBufferPointer) -> Result
  ) throws(ExtentFSError) -> Result {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 64)
    defer { unsafe buffer.deallocate() }
    // Safe: the buffer lives until the function returns.
    let bytes = UnsafeRawBufferPointer(buffer)
    do throws(ExtentFSError) {
      try withSecondAttempt(blockSize.offset(of: block)..<blockSize.offset(of: block + 1)) { () throws(ExtentFSError) in
        try unsafe readPart(into: buffer, at: blockSize.offset(of: block))
        let found = unsafe MetadataChecksum.checksum(bytes, block: block)
        guard found == checksum else {
          throw ExtentFSError(.damaged, "block \(block) has checksum \(found), and its parent says \(checksum)")
        }
      }
    } catch {
      throw error.about(block: block)
    }
    return unsafe body(bytes)
  }

  /// Runs `body`, which reads `range`, once more where it found damage: what came wrong once may come right from the medium, and much
  /// depends on what is called damaged.
  func withSecondAttempt<Result>(
    _ range: Range<UInt64>, _ body: () throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    do throws(ExtentFSError) {
      return try body()
    } catch {
      guard error.isUnreadable else { throw error }
      forgetCached(range)
      return try body()
    }
  }

  /// Fills `buffer` with metadata from `offset` on.
  ///
  /// - Throws: `ExtentFSError` with `damaged` where the device does not give this part, though it gives its beginning; with `device`
  ///   where it gives nothing.
  func readPart(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(ExtentFSError) {
    do throws(DeviceError) {
      try unsafe read(into: buffer, at: offset)
    } catch {
      guard error.errno == EIO else { throw ExtentFSError(error) }
      do throws(DeviceError) {
        let probe = UnsafeMutableRawBufferPointer.allocate(byteCount: Superblock.encodedByteCount, alignment: 4096)
        defer { unsafe probe.deallocate() }
        for slot in 0..<StoreGeometry.superblockSlotCount {
          let start = StoreGeometry.superblockOffset(ofSlot: slot)
          forgetCached(start..<start + UInt64(probe.count))
          try unsafe read(into: probe, at: start)
        }
      } catch {
        throw ExtentFSError(error)
      }
      throw ExtentFSError(.damaged, "\(error)")
    }
  }
}
