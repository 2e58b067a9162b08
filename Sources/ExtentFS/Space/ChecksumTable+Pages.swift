internal import Bytes

extension ChecksumTable {
  /// Brings the page into memory, whole.
  func read(_ page: UInt64) throws(ExtentFSError) {
    while true {
      let place = try place(of: page)
      let stored: ContiguousArray<UInt32>
      do throws(ExtentFSError) {
        stored = try read(place)
      } catch {
        // Checkpoints may have moved it, and used its old slot again.
        if try self.place(of: page) != place { continue }
        if error.isUnreadable {
          let blocks = blocks(of: page)
          damage.note(
            "the checksums of blocks \(blocks.lowerBound) to \(blocks.upperBound - 1)", error,
            "what volumes had there cannot be verified, and is not read")
        }
        throw error
      }
      // While the lock is held and the page is not in memory, no checkpoint can move it.
      let isDone = try stripe(of: page).withLock { stripe throws(ExtentFSError) in
        guard try self.place(of: page) == place else { return false }
        stripe.pageToSet(page).complete(with: stored)
        return true
      }
      if isDone { return }
    }
  }

  /// Brings all pages into memory, whole, in which checksums were set. What the checkpoint that is about to begin commits needs them
  /// whole.
  ///
  /// - Returns: the blocks of those pages that cannot be read. No checksum that was set there can be written.
  func completeDirty() throws(ExtentFSError) -> [Range<UInt64>] {
    var pages: [UInt64] = []
    forEachStripe { pages += $0.dirtyPages() }
    var unreadable: [Range<UInt64>] = []
    for page in pages.sorted() where stripe(of: page).withLock({ $0.page(page)?.isComplete == false }) {
      do throws(ExtentFSError) {
        try read(page)
      } catch {
        guard error.isUnreadable else { throw error }
        unreadable.append(blocks(of: page))
      }
    }
    return unreadable
  }

  /// Adds to `batch` the checksums that this checkpoint's superblock is to lead to, each checksum block for the slot that the last
  /// durable superblock does not use. Those of blocks that are in use and not committed stay set in memory as well.
  ///
  /// To be called when all data is committed, and before `SpaceMap.writeDirty`, which returns the records. After an
  /// error the checkpoint has failed.
  package func writeDirty(_ batch: MetadataBatch) throws(ExtentFSError) {
    var pages: [UInt64] = []
    forEachStripe { pages += $0.dirtyPages() }
    for page in pages.sorted() { try write(page, batch) }
  }

  /// The checkpoint's superblock is durable. To be called after `SpaceMap.didCommit`.
  package func didCommit() {
    precondition(!space.records.isStaging, "the space map hears of a checkpoint's end first")
    forEachStripe { $0.finish { page in page.didCommit() } }
  }

  /// The checkpoint has failed. To be called after `SpaceMap.didFail`.
  package func didFail() {
    precondition(!space.records.isStaging, "the space map hears of a checkpoint's end first")
    forEachStripe { $0.finish { page in page.didFail() } }
  }

  private func write(_ number: UInt64, _ batch: MetadataBatch) throws(ExtentFSError) {
    guard try prepare(number) else { return }
    let values = stripe(of: number).withLock { stripe in
      let (committed, inUse) = bitmaps(of: number)
      return stripe.page(number)?.takeForWriting(committed, inUse: inUse)
    }
    guard let values else { return }
    let (group, index) = groupAndIndex(of: number)
    let slot = 1 - (try place(of: number)).slot
    let checksum = try unsafe batch.addBlock(
      space.geometry.checksumBlock(ofGroup: group, index: index, slot: slot)
    ) { bytes in
      for entry in 0..<values.count {
        // Safe: a block has four bytes for each of a page's values.
        unsafe bytes.storeBytes(of: values[entry].littleEndian, toByteOffset: entry * 4, as: UInt32.self)
      }
    }
    space.records.stage(group, fresh: space.geometry.freshRecord) { record in
      record.checksumPresent |= 1 << UInt32(index)
      record.checksumSlots = record.checksumSlots & ~(1 << UInt32(index)) | UInt32(slot) << UInt32(index)
      record.checksums[index] = checksum
    }
  }

  /// Makes the page complete if it has to be written; false where it has not.
  private func prepare(_ number: UInt64) throws(ExtentFSError) -> Bool {
    while true {
      let isComplete = stripe(of: number).withLock { stripe -> Bool? in
        guard let page = stripe.page(number) else { return nil }
        // Under the stripe's lock: a value that is set later belongs to a block that was allocated before.
        let (committed, inUse) = bitmaps(of: number)
        page.forgetUnused(inUse: inUse)
        return page.needsWriting(committed) ? page.isComplete : nil
      }
      guard let isComplete else { return false }
      if isComplete { return true }
      try read(number)
    }
  }

  /// Which blocks of the page are committed, and which are in use.
  private func bitmaps(of page: UInt64) -> (committed: Bitmap, inUse: Bitmap) {
    let (group, index) = groupAndIndex(of: page)
    let count = Int(space.geometry.checksumsPerBlock)
    guard let (committed, inUse) = space.bitmaps(ofGroup: group) else {
      // A group that cannot be read, of which only the journal says something.
      var all = Bitmap(count: count)
      all.insert(0..<count)
      return (Bitmap(count: count), all)
    }
    let positions = index * count..<(index + 1) * count
    return (committed.slice(positions), inUse.slice(positions))
  }

  private func groupAndIndex(of page: UInt64) -> (group: UInt64, index: Int) {
    let count = UInt64(StoreGeometry.checksumBlocksPerGroup)
    return (page / count, Int(page % count))
  }

  /// Where the last durable superblock has a page.
  private struct Place: Equatable {
    var block: UInt64
    var slot: Int
    var isPresent: Bool
    var checksum: UInt32
  }

  private func place(of page: UInt64) throws(ExtentFSError) -> Place {
    let (group, index) = groupAndIndex(of: page)
    let record = try space.records.record(of: group) ?? space.geometry.freshRecord
    let slot = Int(record.checksumSlots >> UInt32(index) & 1)
    return Place(
      block: space.geometry.checksumBlock(ofGroup: group, index: index, slot: slot), slot: slot,
      isPresent: record.checksumPresent >> UInt32(index) & 1 == 1, checksum: record.checksums[index])
  }

  private func read(_ place: Place) throws(ExtentFSError) -> ContiguousArray<UInt32> {
    let count = Int(space.geometry.checksumsPerBlock)
    guard place.isPresent else { return ContiguousArray(repeating: 0, count: count) }
    return try unsafe space.device.withMetadataBlock(
      place.block, space.geometry.blockSize, checksum: place.checksum
    ) { bytes in
      ContiguousArray(
        (0..<count).map { entry in
          // Safe: as in `write`.
          UInt32(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: entry * 4, as: UInt32.self))
        })
    }
  }
}
