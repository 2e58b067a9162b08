internal import Atomics
internal import Bytes
internal import Checksums
internal import Devices
internal import Extents
internal import Glibc

/// Blocks that were taken for a write.
struct TakenRun {
  var run: PhysicalRun
  /// The logical blocks whose promise they were taken from; nil for none.
  var promise: Range<UInt64>?
}

extension Engine {
  /// How often a writer that finds the store full looks again, at least.
  private static var fullRetryCount: Int { 4 }
  /// How long it goes on looking while blocks that are free are still being read: whoever reads them may have to wait for a
  /// processor.
  private static var fullPatience: Duration { .seconds(1) }

  /// Takes blocks together for data of a volume: for the first of its `blocks`, up to `recordBlocksMax` of them. Where all that
  /// is free is promised, it looks whether to these. Where there are none, it waits for a checkpoint, which frees what was
  /// overwritten, and looks again; more than once, since others take blocks too, and since what is free must first be let go
  /// of by those who are reading it.
  ///
  /// The caller calls `DiskVolume.endPromise` when it has mapped the blocks, or has given them back.
  func allocate(for volume: DiskVolume, at blocks: Range<UInt64>) throws(ExtentFSError) -> TakenRun {
    try health.requireWritable()
    let count = min(blocks.length, Self.recordBlocksMax)
    var deadline: ContinuousClock.Instant?
    var attempt = 0
    while true {
      do {
        return TakenRun(run: try volume.openRun.take(count))
      } catch {
        guard error.code == .outOfSpace else { throw error }
      }
      if let taken = try takePromised(count, for: volume, at: blocks) { return taken }
      // What other volumes have taken beforehand is free as well.
      for other in state.withLock({ Array($0.volumes.values) }) { try other.volume.openRun.returnRest() }
      let now = ContinuousClock.now
      let end = deadline ?? now + Self.fullPatience
      deadline = end
      let isHeld = heldBlockCount.load(ordering: .relaxed) > 0 || volume.hasPromisesInFlight
      guard attempt < Self.fullRetryCount || isHeld && now < end else {
        throw ExtentFSError(.outOfSpace, "volume '\(volume.name)': the store is full").naming(volume: volume.name)
      }
      try checkpoint()
      if attempt > 0 { usleep(1000) }
      attempt += 1
    }
  }

  /// Takes up to `count` blocks that were promised to the first of `blocks`, or to the volume; nil where none were, or others hold them for now.
  ///
  /// This reads the tree, which no other write of whole blocks does; but without it, this one would wait for a checkpoint.
  private func takePromised(
    _ count: UInt64, for volume: DiskVolume, at blocks: Range<UInt64>
  ) throws(ExtentFSError) -> TakenRun? {
    let view = volume.current.load(ordering: .acquiring)
    defer { withExtendedLifetime(view) {} }
    // What a throwaway has reserved is promised to its origin.
    guard view.isJournaled else { return nil }
    let start = blocks.lowerBound
    let reserved = try view.reservedCount(startingAt: start..<start + count, nodes)
    guard let promise = volume.beginPromise(at: start, count: count, reserved: reserved, asIn: view) else { return nil }
    do throws(ExtentFSError) {
      let run = try space.allocate(upTo: promise.length, near: nil, purpose: .promised)
      return TakenRun(run: run, promise: promise)
    } catch {
      volume.endPromise(promise)
      guard error.code == .outOfSpace else { throw error }
      return nil
    }
  }

  /// Gives back a run that nothing maps.
  func giveBack(_ run: PhysicalRun) throws(ExtentFSError) { try space.returnUnused(run) }

  /// Writes `bytes`, whole blocks with the given checksums, into `run`.
  func store(
    _ bytes: UnsafeRawBufferPointer, _ sums: UnsafeBufferPointer<UInt32>, in run: PhysicalRun
  ) throws(ExtentFSError) {
    do {
      try unsafe device.write(bytes, at: blockSize.offset(of: run.block))
    } catch {
      throw ExtentFSError(error)
    }
    unsafe checksums.set(run, sums)
  }

  /// Reads whole blocks from `block` on into `buffer` and compares each with its checksum.
  func readChecked(
    _ buffer: UnsafeMutableRawBufferPointer, from block: UInt64, for volume: DiskVolume, at logical: UInt64
  ) throws(ExtentFSError) {
    let end = device.byteCount >> blockSize.shift
    guard block < end, UInt64(buffer.count) >> blockSize.shift <= end - block else {
      throw ExtentFSError(
        .damaged,
        "volume '\(volume.name)', offset \(blockSize.offset(of: logical)): block \(block) lies behind the device's end"
      ).naming(volume: volume.name)
    }
    do {
      try unsafe device.read(into: buffer, at: blockSize.offset(of: block))
    } catch {
      throw ExtentFSError(error)
    }
    let size = blockSize.byteCount
    for index in 0..<buffer.count / size {
      // Safe: the block lies in the buffer.
      let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: buffer[index * size..<(index + 1) * size]))
      let expected = try checksums.checksum(of: block + UInt64(index))
      guard found == expected else {
        throw ExtentFSError(
          .damaged,
          "volume '\(volume.name)', offset \(blockSize.offset(of: logical + UInt64(index))): block \(block + UInt64(index)) "
            + "has the checksum \(found), and \(expected) was expected"
        ).naming(volume: volume.name)
      }
    }
  }

  /// Runs `body` with room for one block.
  func withScratchBlock<Result>(
    _ body: (UnsafeMutableRawBufferPointer) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 4096)
    defer { unsafe scratch.deallocate() }
    return try unsafe body(scratch)
  }

  /// Runs `body` with the checksums of the whole blocks in `bytes`.
  func withChecksums<Result>(
    of bytes: UnsafeRawBufferPointer, _ body: (UnsafeBufferPointer<UInt32>) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    let size = blockSize.byteCount
    let count = bytes.count / size
    if count == 1 {
      var sum = unsafe CRC32C.checksum(bytes)
      return try unsafe withUnsafePointer(to: &sum) { pointer throws(ExtentFSError) in
        try unsafe body(UnsafeBufferPointer(start: pointer, count: 1))
      }
    }
    let sums = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: count)
    defer { unsafe sums.deallocate() }
    for index in 0..<count {
      // Safe: the block lies in `bytes`, and there is a place for each block.
      unsafe sums[index] = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[index * size..<(index + 1) * size]))
    }
    return try unsafe body(UnsafeBufferPointer(sums))
  }
}
