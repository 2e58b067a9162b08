internal import Bytes
internal import Devices

/// The superblock that counts, and what is wrong with the slot that it is not in, or was not read from as it is.
struct SuperblockSearch {
  var superblock: Superblock
  var slot: Int
  /// A slot that is neither valid nor new, and has to be written anew before anything else; nil where there is none.
  var broken: BrokenSlot?

  /// A slot that holds no valid superblock, though one was written there.
  struct BrokenSlot {
    var slot: Int
    var error: ExtentFSError
    var meaning: Meaning
  }

  enum Meaning {
    /// A power cut interrupted the writing of a superblock, which so never counted.
    case torn
    /// It held the one before the one that counts.
    case older
    /// It held the one that counts, which could be read all the same.
    case mended
    /// It may have held a newer one than the one that counts.
    case unknown
  }
}

extension SuperblockSearch.BrokenSlot {
  /// What is called damaged; nil where nothing is, since the end of a power cut is none.
  var part: String? { meaning == .torn ? nil : "superblock slot \(slot)" }

  /// What it means for users.
  var effect: String {
    switch meaning {
    case .torn, .older: "it was an older one, and nothing is missing"
    case .mended: "what was there could be restored, and nothing is missing"
    case .unknown:
      "it may have been the newest, so that names, sizes and snapshots that were changed last may be missing"
    }
  }
}

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

  /// The newest valid superblock and its slot; see `findSuperblock`.
  func newestSuperblock() throws(ExtentFSError) -> (superblock: Superblock, slot: Int) {
    let found = try findSuperblock()
    return (found.superblock, found.slot)
  }

  /// Looks for the newest superblock.
  ///
  /// One slot may hold what is not valid. After a power cut that is normal, and shows; see `Superblock.isTorn`. Else it was changed by
  /// whatever changes bytes, and may have been the newest: then the other one leads to blocks that may be in use for something else.
  ///
  /// - Throws: `.device` where a slot cannot be read; `.notAStore` where neither slot has the mark of one; `.newerFormat` where one has features unknown to this
  ///   program, for it may be the newest; else what is wrong with the first.
  func findSuperblock() throws(ExtentFSError) -> SuperblockSearch {
    var newest: (superblock: Superblock, slot: Int)?
    var failures: [(slot: Int, error: ExtentFSError, bytes: [UInt8])] = []
    for slot in 0..<StoreGeometry.superblockSlotCount {
      // A slot that cannot be read may hold the newest: what the other one leads to may be in use for something else.
      let bytes = try readSuperblockBytes(slot: slot)
      do throws(ExtentFSError) {
        let superblock = try bytes.withRawSpan { span throws(ExtentFSError) in try Superblock(decoding: span) }
        if superblock.generation > newest?.superblock.generation ?? 0 { newest = (superblock, slot) }
      } catch {
        if error.code == .newerFormat { throw error }
        failures.append((slot, error, bytes))
      }
    }
    guard let newest else {
      throw failures.first { $0.error.code != .notAStore }?.error ?? failures.first?.error
        ?? ExtentFSError(.damaged, "neither superblock has a generation")
    }
    guard let (slot, error, bytes) = failures.first else {
      return SuperblockSearch(superblock: newest.superblock, slot: newest.slot)
    }
    // The second slot of a store that was just made.
    if newest.superblock.generation <= 1, bytes.allSatisfy({ $0 == 0 }) {
      return SuperblockSearch(superblock: newest.superblock, slot: newest.slot)
    }
    return try search(newest.superblock, newest.slot, besides: (slot, error, bytes))
  }

  private func search(
    _ sound: Superblock, _ soundSlot: Int, besides broken: (slot: Int, error: ExtentFSError, bytes: [UInt8])
  ) throws(ExtentFSError) -> SuperblockSearch {
    var found = SuperblockSearch(
      superblock: sound, slot: soundSlot,
      broken: SuperblockSearch.BrokenSlot(slot: broken.slot, error: broken.error, meaning: .unknown))
    // First: one wrong bit in a generation looks as if a power cut had torn it.
    if let mended = Superblock.mending(broken.bytes, besides: sound) {
      if mended.generation <= sound.generation {
        found.broken?.meaning = .older
      } else if try leadsToTrees(mended) {
        (found.superblock, found.slot) = (mended, broken.slot)
        found.broken?.meaning = .mended
      }
    } else if Superblock.isTorn(broken.bytes, besides: sound) {
      found.broken?.meaning = .torn
    } else if Superblock.wasOlder(broken.bytes, than: sound) {
      found.broken?.meaning = .older
    }
    return found
  }

  /// Whether the roots of all trees are where the superblock says.
  private func leadsToTrees(_ superblock: Superblock) throws(ExtentFSError) -> Bool {
    let nodes = NodeCache(device: self, blockSize: superblock.geometry.blockSize, byteLimit: 0)
    do throws(ExtentFSError) {
      for (root, kind) in [
        (superblock.inodes, NodeKind.inodes), (superblock.names, .names), (superblock.space, .space),
        (superblock.shared, .shared),
      ] where !root.isEmpty { _ = try nodes.root(root, kind: kind, owner: 0) }
      return true
    } catch {
      guard error.isUnreadable else { throw error }
      return false
    }
  }

  /// Puts the superblock that counts in place of what a broken slot holds. Only some sectors of one that a power cut tore
  /// may be wrong, and a later write that is torn in its turn could mend them. Then that superblock would count, after what its
  /// trees reach has been written over.
  ///
  /// - Returns: whether it wrote, which must be durable before anything else is written.
  func replaceBrokenSuperblock(_ found: SuperblockSearch) throws(ExtentFSError) -> Bool {
    guard let broken = found.broken else { return false }
    try writeSuperblock(found.superblock, slot: broken.slot)
    return true
  }

  /// Whether `slot` certainly holds what it held before somebody tried to write `superblock` there: an older one, or none. One of which
  /// a part is there could be made whole by a later write that a power cut tears, after its blocks have been written over.
  func isUntouched(slot: Int, by superblock: Superblock) -> Bool {
    do throws(ExtentFSError) {
      let bytes = try readSuperblockBytes(slot: slot)
      let found = try bytes.withRawSpan { span throws(ExtentFSError) in try Superblock(decoding: span) }
      return found.generation < superblock.generation
    } catch {
      return error.code == .notAStore
    }
  }

  private func readSuperblockBytes(slot: Int) throws(ExtentFSError) -> [UInt8] {
    let offset = StoreGeometry.superblockOffset(ofSlot: slot)
    guard byteCount >= offset + UInt64(Superblock.encodedByteCount) else {
      throw ExtentFSError(.notAStore, "there is no Lacuna store here: the device has \(byteCount) bytes")
    }
    var bytes = [UInt8](repeating: 0, count: Superblock.encodedByteCount)
    // Safe: the pointer is used inside the closure only.
    let result = unsafe bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(DeviceError) in try unsafe read(into: buffer, at: offset) }
    }
    do { try result.get() } catch { throw ExtentFSError(error) }
    return bytes
  }
}

extension [UInt8] {
  /// Runs `body` with the bytes.
  fileprivate func withRawSpan<Result>(
    _ body: (RawSpan) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    try unsafe body(span.bytes)
  }
}
