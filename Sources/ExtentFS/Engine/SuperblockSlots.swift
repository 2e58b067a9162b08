internal import Bytes
internal import Devices

extension BlockDevice {
  /// Writes `superblock` into one of the two slots.
  func writeSuperblock(_ superblock: Superblock, slot: Int) throws(ExtentFSError) {
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Superblock.encodedByteCount, alignment: 4096)
    defer { unsafe bytes.deallocate() }
    var span = unsafe bytes.mutableBytes
    superblock.encode(into: &span)
    do {
      try unsafe write(UnsafeRawBufferPointer(bytes), at: StoreGeometry.superblockOffset(ofSlot: slot))
    } catch {
      throw ExtentFSError(error)
    }
  }

  /// The newest valid superblock and its slot.
  ///
  /// - Throws: `.device` where a slot cannot be read; `.notAStore` where neither slot has the mark of one; `.newerFormat` where one has features unknown to this
  ///   program, for it may be the newest; else what is wrong with the first.
  func newestSuperblock() throws(ExtentFSError) -> (superblock: Superblock, slot: Int) {
    var newest: (superblock: Superblock, slot: Int)?
    var failure: ExtentFSError?
    for slot in 0..<StoreGeometry.superblockSlotCount {
      do throws(ExtentFSError) {
        let superblock = try readSuperblock(slot: slot)
        if superblock.generation > newest?.superblock.generation ?? 0 { newest = (superblock, slot) }
      } catch {
        // A slot that cannot be read may hold the newest: what the other one leads to may be in use for something else.
        if error.code == .newerFormat || error.isDevice { throw error }
        if failure == nil || failure?.code == .notAStore { failure = error }
      }
    }
    if let newest { return newest }
    throw failure ?? ExtentFSError(.damaged, "neither superblock has a generation")
  }

  /// Puts `superblock`, which is durable in `slot`, in place of what the other slot holds, where that is a broken one: one
  /// that a power cut tore. Only some of its sectors may be wrong, and a later write that is torn in its turn could mend
  /// them. Then that superblock would count, after what its trees reach has been written over.
  ///
  /// - Returns: whether it wrote, which must be durable before anything else is written.
  func replaceBrokenSuperblock(by superblock: Superblock, besides slot: Int) throws(ExtentFSError) -> Bool {
    do throws(ExtentFSError) {
      _ = try readSuperblock(slot: 1 - slot)
      return false
    } catch {
      // What lacks the mark of one was never written, or cannot be mended without being written whole.
      guard error.code == .damaged else { return false }
    }
    try writeSuperblock(superblock, slot: 1 - slot)
    return true
  }

  private func readSuperblock(slot: Int) throws(ExtentFSError) -> Superblock {
    let offset = StoreGeometry.superblockOffset(ofSlot: slot)
    guard byteCount >= offset + UInt64(Superblock.encodedByteCount) else {
      throw ExtentFSError(.notAStore, "there is no Lacuna store here: the device has \(byteCount) bytes")
    }
    let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: Superblock.encodedByteCount, alignment: 4096)
    defer { unsafe bytes.deallocate() }
    do {
      try unsafe read(into: bytes, at: offset)
    } catch {
      throw ExtentFSError(error)
    }
    return try Superblock(decoding: unsafe bytes.bytes)
  }
}

extension ExtentFSError {
  /// Whether a call on the device failed.
  fileprivate var isDevice: Bool {
    if case .device = code { return true }
    return false
  }
}
