internal import Bytes
package import Extents

/// The CRC32C of each block of data, by physical block.
///
/// On the device they are in checksum blocks, 32 a group, two slots each; in memory in pages, one a checksum block. A page
/// that was read and not changed may leave memory; one with values that are not on the device may not. Setting a value
/// never waits for the device: where the page is not in memory, one is made that knows this value only, and the rest is
/// read when it is asked for, or by the checkpoint.
///
/// Thread safety: any thread. Pages are in 64 stripes with a lock each; no lock is held while the device works. Lock order: a
/// stripe's lock, then the space map's `state`. One thread at a time runs a checkpoint.
package final class ChecksumTable: Sendable {
  let space: SpaceMap
  let damage: DamageRegister
  private let stripes: [Locked<ChecksumStripe>]
  /// The first block of group 0.
  private let firstBlock: UInt64
  /// The block after the last one that any device can have.
  private let endBlock: UInt64
  /// The binary logarithm of the number of checksums in a page.
  private let shift: UInt64

  /// The checksums of the blocks of `space`, of which clean ones take at most about `byteBudget` bytes of memory.
  ///
  /// - Parameter damage: hears of checksum blocks that cannot be read.
  package init(space: SpaceMap, byteBudget: Int, damage: DamageRegister = DamageRegister()) {
    self.space = space
    self.damage = damage
    let geometry = space.geometry
    firstBlock = geometry.headBlockCount
    shift = geometry.blockSize.shift - 2
    endBlock = (UInt64(Int64.max) >> geometry.blockSize.shift) - geometry.blocksPerGroup
    let pages = max(byteBudget / Self.stripeCount / geometry.blockSize.byteCount, 1)
    stripes = (0..<Self.stripeCount).map { _ in
      Locked(rank: .checksumStripe, ChecksumStripe(valueCount: Int(geometry.checksumsPerBlock), pageLimit: pages))
    }
  }

  private static var stripeCount: Int { 64 }

  /// Sets the checksum of `block`, which was allocated. Never waits for the device.
  package func set(_ block: UInt64, _ checksum: UInt32) {
    // A number that is no block of a group has no place, and nothing can ask for it.
    guard block >= firstBlock, block < endBlock else { return }
    let (page, index) = place(of: block)
    stripe(of: page).withLock { $0.pageToSet(page).set(index, checksum) }
  }

  /// Sets the checksums of `run`, which was allocated, from its first block on. Never waits for the device.
  ///
  /// - Precondition: there is a checksum for each block.
  package func set(_ run: PhysicalRun, _ checksums: UnsafeBufferPointer<UInt32>) {
    precondition(checksums.count == run.count, "\(checksums.count) checksums are none for \(run.count) blocks")
    guard isInside(run) else { return }
    forEachPage(of: run) { page, indices, done in
      stripe(of: page).withLock { stripe in
        let page = stripe.pageToSet(page)
        // Safe: `done` and the length of `indices` stay inside the run, and the precondition inside the buffer.
        for index in indices { unsafe page.set(index, checksums[done + index - indices.lowerBound]) }
      }
    }
  }

  /// The checksum of `block`: the one that was last set, 0 where none was.
  ///
  /// - Throws: `ExtentFSError` with `damaged` or `device` where its checksum block cannot be read.
  package func checksum(of block: UInt64) throws(ExtentFSError) -> UInt32 {
    guard block >= firstBlock, block < endBlock else { throw Self.outside(block) }
    let (page, index) = place(of: block)
    while true {
      let known = stripe(of: page).withLock { stripe in
        let known = stripe.page(page)?.value(at: index)
        stripe.note(isHit: known != nil)
        return known
      }
      if let known { return known }
      try read(page)
    }
  }

  /// Puts the checksums of `run` into `checksums`, as `checksum(of:)` does for one block.
  ///
  /// - Precondition: there is room for a checksum of each block.
  package func getChecksums(
    of run: PhysicalRun, into checksums: UnsafeMutableBufferPointer<UInt32>
  ) throws(ExtentFSError) {
    precondition(checksums.count == run.count, "\(run.count) checksums do not fit \(checksums.count)")
    guard isInside(run) else { throw Self.outside(run.block) }
    try forEachPage(of: run) { page, indices, done throws(ExtentFSError) in
      // Safe: `done` and the length of `indices` stay inside the run, and the precondition inside the buffer.
      let part = unsafe UnsafeMutableBufferPointer(rebasing: checksums[done..<done + indices.count])
      while !(stripe(of: page).withLock { stripe in
        let isKnown = unsafe stripe.page(page)?.copy(indices, to: part) ?? false
        stripe.note(isHit: isKnown)
        return isKnown
      }) {
        try read(page)
      }
    }
  }

  /// What became of looks for checksums since the store was opened, and how many bytes are in memory.
  var cacheStatistics: CacheStatistics {
    var figures = CacheStatistics()
    for stripe in stripes {
      stripe.withLock { stripe in
        figures.hitCount &+= stripe.hits
        figures.missCount &+= stripe.misses
        figures.byteCount &+= UInt64(stripe.pageCount * stripe.valueCount) * 4
      }
    }
    return figures
  }

  private func isInside(_ run: PhysicalRun) -> Bool {
    let (end, overflow) = run.block.addingReportingOverflow(run.count)
    return run.block >= firstBlock && !overflow && end <= endBlock
  }

  private static func outside(_ block: UInt64) -> ExtentFSError {
    ExtentFSError(.damaged, "block \(block) is mapped, and is out of range")
  }

  /// The blocks whose checksums the page has.
  func blocks(of page: UInt64) -> Range<UInt64> { firstBlock + page << shift..<firstBlock + (page + 1) << shift }

  /// The page of `block` and the block's index in it.
  @inline(__always)
  private func place(of block: UInt64) -> (page: UInt64, index: Int) {
    let position = block - firstBlock
    return (position >> shift, Int(position & ((1 << shift) - 1)))
  }

  @inline(__always)
  func stripe(of page: UInt64) -> Locked<ChecksumStripe> {
    stripes[Int(truncatingIfNeeded: page) & (Self.stripeCount - 1)]
  }

  /// Calls `body` with each page that `run` touches, the run's indices in it, and how many blocks came before them.
  private func forEachPage<Failure: Error>(
    of run: PhysicalRun, _ body: (_ page: UInt64, _ indices: Range<Int>, _ done: Int) throws(Failure) -> Void
  ) throws(Failure) {
    var done: UInt64 = 0
    while done < run.count {
      let (page, index) = place(of: run.block + done)
      let count = min(run.count - done, (1 << shift) - UInt64(index))
      try body(page, index..<index + Int(count), Int(done))
      done += count
    }
  }

  /// Calls `body` with each stripe, under its lock.
  func forEachStripe(_ body: (inout ChecksumStripe) -> Void) { for stripe in stripes { stripe.withLock { body(&$0) } } }
}
