internal import Atomics
internal import Bytes
internal import Extents
internal import Glibc

extension DiskVolume {
  /// Writes all of `bytes` at `offset`. When it returns, data and journal record are in the kernel's hands.
  ///
  /// Whole blocks never read anything. Whole blocks of zeroes become holes, where the store is set so.
  ///
  /// - Throws: `.outOfRange` where the range passes the volume's end, `.deleted`; `.outOfSpace`, `.device`, `.failed`: each
  ///   block is then as it was, or as written.
  package func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(ExtentFSError) {
    let range = try state.withView { view throws(ExtentFSError) in try checkedRange(offset, bytes.count, in: view) }
    guard !range.isEmpty else { return }
    let whole = blockSize.blocks(inside: range)
    for edge in BlockEdges(of: range, blockSize) where !whole.contains(edge) {
      let part = blockSize.bytes(of: edge..<edge + 1, within: range)
      // Safe: `part` lies in `range`, which is as long as `bytes`.
      let source = unsafe UnsafeRawBufferPointer(
        rebasing: bytes[Int(part.lowerBound - offset)..<Int(part.upperBound - offset)])
      try unsafe writePart(source, at: part, of: edge)
    }
    guard !whole.isEmpty else { return }
    let start = Int(blockSize.offset(of: whole.lowerBound) - offset)
    // Safe: the whole blocks lie in `range`.
    let source = unsafe UnsafeRawBufferPointer(
      rebasing: bytes[start..<start + Int(whole.length) * blockSize.byteCount])
    try unsafe writeBlocks(source, at: whole)
  }

  /// Makes `range` read as zeroes: whole blocks become holes, or keep the promise of space, and cost the same however many
  /// they are; what is left at the ends is written.
  package func zero(in range: Range<UInt64>, keepsSpace: Bool) throws(ExtentFSError) {
    while true {
      let isDone = try state.withView { view throws(ExtentFSError) in
        try state.requireChangeable(range, in: view)
        guard !range.isEmpty else { return true }
        let whole = wholeBlocks(in: range, view)
        for edge in BlockEdges(of: range, blockSize) where !whole.contains(edge) {
          // Where it is a hole now, this is a moment at which it reads as zeroes.
          if !keepsSpace, try view.location(of: edge, engine.nodes) == .hole { continue }
          try zeroPart(blockSize.bytes(of: edge..<edge + 1, within: range), of: edge)
        }
        return try keepsSpace ? reserve(whole, in: range) : unmap(whole, in: range)
      }
      if isDone { return }
    }
  }

  /// Makes the whole blocks in `range` holes; parts of blocks at its ends keep what they hold.
  package func discard(in range: Range<UInt64>) throws(ExtentFSError) {
    while true {
      let whole = try state.withView { view throws(ExtentFSError) in
        try state.requireChangeable(range, in: view)
        return wholeBlocks(in: range, view)
      }
      if try unmap(whole, in: range) { return }
    }
  }

  /// The blocks that lie wholly in `range`; the last block of the volume that `view` shows counts as if the volume filled it.
  private func wholeBlocks(in range: Range<UInt64>, _ view: View) -> Range<UInt64> {
    guard range.upperBound == view.byteCount else { return blockSize.blocks(inside: range) }
    let first = blockSize.blocks(toHold: range.lowerBound)
    return first..<max(first, blockSize.blocks(toHold: range.upperBound))
  }
}

extension DiskVolume {
  /// Writes whole blocks; those that are all zeroes become holes where the store is set so.
  private func writeBlocks(_ bytes: UnsafeRawBufferPointer, at blocks: Range<UInt64>) throws(ExtentFSError) {
    guard engine.options.detectsZeroes else { return try unsafe storeBlocks(bytes, at: blocks) }
    let size = blockSize.byteCount
    var first = 0
    let count = Int(blocks.length)
    while first < count {
      // Safe: block `index` lies in `bytes` for every index below `count`.
      func isZero(_ index: Int) -> Bool {
        unsafe UnsafeRawBufferPointer(rebasing: bytes[index * size..<(index + 1) * size]).isAllZero
      }
      let kind = isZero(first)
      var end = first + 1
      while end < count, isZero(end) == kind { end += 1 }
      let part = blocks.lowerBound + UInt64(first)..<blocks.lowerBound + UInt64(end)
      if kind {
        // All of their bytes are the caller's, whatever the volume's size.
        _ = try unmap(part, in: bytesOf(part))
      } else {
        try unsafe storeBlocks(UnsafeRawBufferPointer(rebasing: bytes[first * size..<end * size]), at: part)
      }
      first = end
    }
  }

  /// Stores whole blocks in as few runs as there is room for.
  private func storeBlocks(_ bytes: UnsafeRawBufferPointer, at blocks: Range<UInt64>) throws(ExtentFSError) {
    var next = blocks
    while !next.isEmpty {
      let taken = try allocate(for: next)
      defer { endPromise(taken) }
      let run = taken.run
      let start = Int(next.lowerBound - blocks.lowerBound) * blockSize.byteCount
      // Safe: the part from `start` on holds the blocks of `next`, of which the run takes no more than there are.
      let part = unsafe UnsafeRawBufferPointer(
        rebasing: bytes[start..<start + Int(run.count) * blockSize.byteCount])
      let logical = next.lowerBound..<next.lowerBound + run.count
      do throws(ExtentFSError) {
        _ = try unsafe storeAndPublish(part, at: logical, changing: bytesOf(logical), in: run, ifAsIn: nil)
      } catch {
        try engine.space.cancelAllocation(run)
        throw error
      }
      next = logical.upperBound..<next.upperBound
    }
  }

  /// Writes zeroes to `range`, which is a part of the block `block`, and keeps the rest of it.
  private func zeroPart(_ range: Range<UInt64>, of block: UInt64) throws(ExtentFSError) {
    try unsafe engine.blocks.withScratchBlock { scratch throws(ExtentFSError) in
      unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0)
      try unsafe writePart(UnsafeRawBufferPointer(rebasing: scratch[..<Int(range.length)]), at: range, of: block)
    }
  }

  /// Writes `bytes` to `range`, which is a part of the block `block`, and keeps the rest of it.
  private func writePart(
    _ bytes: UnsafeRawBufferPointer, at range: Range<UInt64>, of block: UInt64
  ) throws(ExtentFSError) {
    let skip = Int(range.lowerBound - blockSize.offset(of: block))
    let taken = try allocate(for: block..<block + 1)
    defer { endPromise(taken) }
    do throws(ExtentFSError) {
      try unsafe engine.blocks.withScratchBlock { scratch throws(ExtentFSError) in
        var isDone = false
        while !isDone {
          // The view keeps the old block from being used for anything else while it is read.
          isDone = try state.withView { basis throws(ExtentFSError) in
            if let old = try basis.location(of: block, engine.nodes).physicalBlock {
              try unsafe engine.blocks.read(scratch, from: old, for: state, at: block)
            } else {
              unsafe scratch.initializeMemory(as: UInt8.self, repeating: 0)
            }
            unsafe UnsafeMutableRawBufferPointer(rebasing: scratch[skip...]).copyMemory(from: bytes)
            // Where another write changed the block meanwhile, that one has succeeded, and this one looks again.
            return try unsafe storeAndPublish(
              UnsafeRawBufferPointer(scratch), at: block..<block + 1, changing: range, in: taken.run, ifAsIn: basis)
          }
        }
      }
    } catch {
      try engine.space.cancelAllocation(taken.run)
      throw error
    }
  }

  /// The bytes of whole blocks.
  private func bytesOf(_ blocks: Range<UInt64>) -> Range<UInt64> {
    blockSize.offset(of: blocks.lowerBound)..<blockSize.offset(of: blocks.upperBound)
  }

  /// Writes `bytes` into `run` and maps `logical` to it, in the journal and in the view; where a `basis` is given, only if the
  /// first block is mapped as there, and else false. `range`: as for `change`.
  private func storeAndPublish(
    _ bytes: UnsafeRawBufferPointer, at logical: Range<UInt64>, changing range: Range<UInt64>, in run: PhysicalRun,
    ifAsIn basis: View?
  ) throws(ExtentFSError) -> Bool {
    try unsafe engine.blocks.withChecksums(of: bytes) { sums throws(ExtentFSError) in
      try unsafe engine.blocks.write(bytes, sums, in: run)
      let physical = BlockLocation.physical(run.block)
      return try change(logical, changing: range, to: physical, ifAsIn: basis) { _ throws(ExtentFSError) in
        let sequence = try unsafe engine.journal.appendMap(
          inode: inode, logical: logical.lowerBound, physical: run.block, checksums: sums)
        return sequence == nil ? .journalIsFull : .appended
      } == .done
    }
  }

  /// Makes `blocks` holes. False, with nothing changed, where not all of their bytes lie in `range` any more, since the volume has
  /// become larger.
  func unmap(_ blocks: Range<UInt64>, in range: Range<UInt64>) throws(ExtentFSError) -> Bool {
    guard !blocks.isEmpty else { return true }
    return try change(blocks, changing: range, to: .hole, ifAsIn: nil) { _ throws(ExtentFSError) in
      try engine.journal.appendUnmap(inode: inode, logical: blocks) == nil ? .journalIsFull : .appended
    } == .done
  }

  /// Blocks for data: of those that the volume has taken beforehand, or else of the store.
  private func allocate(for blocks: Range<UInt64>) throws(ExtentFSError) -> TakenRun {
    try engine.health.requireWritable()
    return try engine.allocator.allocate(for: state, at: blocks)
  }

  /// The blocks were mapped, or given back.
  @inline(__always)
  private func endPromise(_ taken: TakenRun) {
    if let promise = taken.promise { state.endPromise(promise) }
  }

  /// Appends a record and publishes what it says, as one step for all other writers. Waits for a checkpoint where the journal
  /// has no room for the record.
  ///
  /// What the caller has decided from an older view is decided again by `OpenVolume.change`: a checkpoint, a rollback or a change
  /// of the size may have come between.
  ///
  /// - Parameters:
  ///   - range: the bytes that the caller was asked to change. They must lie in the volume as it is now.
  ///   - basis: the view that the rest of the one block was taken from; nil where the blocks are changed whole.
  /// - Returns: `done`; or `hasChanged` or `refused`, where nothing was changed.
  func change(
    _ blocks: Range<UInt64>, changing range: Range<UInt64>, to target: BlockLocation, ifAsIn basis: View?,
    _ append: (View) throws(ExtentFSError) -> AppendOutcome
  ) throws(ExtentFSError) -> ChangeOutcome {
    let change = MappingChange(blocks: blocks, range: range, target: target, basis: basis, blockSize: blockSize)
    // How many blocks more the volume maps then, at most, and the epoch that this is true in; nil for any.
    var charge = target.physicalBlock == nil ? 0 : blocks.length
    var chargeEpoch: Epoch?
    var quotaAttemptCount = 0
    while true {
      if engine.reserve.isUsedUp { try engine.extendReserve() }
      let (outcome, deadBlockCount) = try state.change(change, charge: charge, in: chargeEpoch, append)
      switch outcome {
      case .done, .hasChanged, .refused:
        engine.noteChange(deadBlockCount: deadBlockCount)
        return outcome
      case .journalIsFull: try engine.waitForJournalRoom()
      case .isExclusive: engine.checkpoints.waitForEnd()
      case .chargeIsOld: (charge, chargeEpoch) = try exactCharge(blocks)
      case .overQuota:
        (charge, chargeEpoch) = try exactCharge(blocks, attempt: quotaAttemptCount)
        quotaAttemptCount += 1
      }
    }
  }

  /// How many of `blocks` the volume does not map, where a quota is not enough for counting all of them, and in which epoch: a
  /// checkpoint counts what was trimmed since no longer. This reads the tree.
  ///
  /// - Parameter attempt: 0 at first; then a checkpoint finds out how much is really mapped.
  /// - Throws: `.quotaReached` where that has not helped.
  private func exactCharge(
    _ blocks: Range<UInt64>, attempt: Int = 0
  ) throws(ExtentFSError) -> (count: UInt64, epoch: Epoch?) {
    if attempt > 1 {
      let quota = state.quota
      throw ExtentFSError(
        .quotaReached, "volume '\(name)': it has as much as its quota of \(blockSize.offset(of: quota)) bytes allows"
      ).naming(volume: name)
    }
    if attempt == 1 { try engine.checkpoint() }
    return try state.withView { view throws(ExtentFSError) in
      var count: UInt64 = 0
      try view.forEachPiece(in: blocks, engine.nodes) { piece, location in
        if location.physicalBlock == nil { count += piece.length }
        return true
      }
      return (count, view.epoch)
    }
  }
}

extension UnsafeRawBufferPointer {
  /// Whether all bytes are zero. There are at least eight.
  fileprivate var isAllZero: Bool {
    guard let start = baseAddress, unsafe start.loadUnaligned(as: UInt64.self) == 0 else { return false }
    // All bytes are zero if the first eight are, and each byte equals the one eight places before it.
    return unsafe memcmp(start, start + 8, count - 8) == 0
  }
}
