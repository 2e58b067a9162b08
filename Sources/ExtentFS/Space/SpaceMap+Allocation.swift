package import Extents

extension SpaceMap {
  /// Takes up to `count` free blocks together, at least one.
  ///
  /// Data comes from `near` on where that block is free, else from the next free run that is not a mere fragment. Where all
  /// that is free are fragments, the next few groups are read, or the device grows, until the fragments are so many that they are
  /// worth more than runs: a sixteenth of what is used, and 64 MiB. Then, and where the device cannot grow, the next
  /// fragments are taken.
  ///
  /// - Throws: `ExtentFSError` with `outOfSpace` where only the reserve is left, which changes nothing; `damaged` or
  ///   `device` where a bitmap cannot be read, or the device not grown for another reason than a lack of space.
  package func allocate(
    upTo count: UInt64, near: UInt64? = nil, purpose: SpacePurpose
  ) throws(ExtentFSError) -> PhysicalRun {
    guard count > 0 else { throw ExtentFSError(.invalidArgument, "no blocks were asked for") }
    if let run = state.withLock({ $0.take(upTo: count, near: near, purpose, .whereMany) }) { return run }
    return try slowPath.withLock { () throws(ExtentFSError) in
      var readCount = 0
      while true {
        let use = readCount < Self.groupsReadForRun ? FragmentUse.whereMany : .always
        if let run = state.withLock({ $0.take(upTo: count, near: near, purpose, use) }) { return run }
        // What is promised stays so, however far the device grows.
        if purpose == .data, state.withLock({ $0.unpromisedCount == 0 }) { throw full }
        if try readNextGroup() {
          readCount += 1
          continue
        }
        if purpose == .data, try grow() { continue }
        if let run = state.withLock({ $0.take(upTo: count, near: near, purpose, .always) }) { return run }
        if try grow() { continue }
        throw full
      }
    }
  }

  /// How many groups one allocation reads in search of more than fragments.
  private static var groupsReadForRun: Int { 4 }

  private var full: ExtentFSError {
    ExtentFSError(.outOfSpace, "the store is full: none of its \(blockCount) blocks is free and unreserved")
  }

  /// Gives back blocks that were allocated, and that neither a tree nor a record of the journal leads to.
  ///
  /// - Throws: `ExtentFSError` with `internalInconsistency` where they were not allocated, or are committed.
  package func cancelAllocation(_ run: PhysicalRun) throws(ExtentFSError) { try free(run, isHeld: true) }

  /// Makes blocks free that were released, or that were replaced before they were ever committed.
  ///
  /// To be called when the checkpoint that released them is durable and no reader's view leads to them.
  ///
  /// - Throws: `ExtentFSError` with `internalInconsistency` where they are free already, or are committed.
  package func free(_ run: PhysicalRun) throws(ExtentFSError) { try free(run, isHeld: true) }

  /// Marks blocks as allocated that a record of the journal names. Claiming a block twice changes nothing.
  ///
  /// - Throws: `ExtentFSError` with `damaged` where a block is no block for data, or is committed.
  package func claim(_ run: PhysicalRun) throws(ExtentFSError) {
    try withGroup(of: run) { state, group, positions throws(ExtentFSError) in
      guard !group.isCommitted(anyOf: positions) else {
        throw ExtentFSError(.damaged, "the journal names blocks \(run.blocks), which the store's trees reach")
      }
      let before = group.freeCount
      group.claim(positions)
      state.freeCount = state.freeCount.saturatingSubtract(UInt64(before - group.freeCount))
    }
  }

  /// - Parameter isHeld: whether the host may have storage for it: it has where it was written, and where the device has just grown.
  func free(_ run: PhysicalRun, isHeld: Bool) throws(ExtentFSError) {
    try withGroup(of: run) { state, group, positions throws(ExtentFSError) in
      guard group.isUncommitted(positions) else {
        throw ExtentFSError.internalInconsistency("blocks \(run.blocks) are freed, and are free or in use by a tree")
      }
      group.clear(positions)
      state.freeCount += UInt64(positions.count)
      state.cursor = min(state.cursor, run.block)
      if isHeld { state.markForTrim(positions, of: group) }
    }
  }
}

/// Whether data may take runs that are so short that they make an allocation of their own each.
enum FragmentUse {
  case whereMany, always
}

extension SpaceState {
  /// Blocks kept together for nodes of trees at once, at most.
  private static var metadataRunLength: UInt64 { 256 }

  /// Shorter free runs are fragments: 256 KiB.
  private var fragmentLimit: Int { Int(Swift.max((256 << 10) >> geometry.blockSize.shift, 1)) }

  /// Whether free space that is all fragments is better used than left alone.
  private var hasManyFragments: Bool {
    nextGroupToRead >= groupCount && freeCount >= usedCount / 16 + (64 << 20) >> geometry.blockSize.shift
  }

  /// Takes from the groups in memory; nil where they have nothing that may be taken, or only the reserve is left.
  mutating func take(
    upTo count: UInt64, near: UInt64?, _ purpose: SpacePurpose, _ fragments: FragmentUse
  ) -> PhysicalRun? {
    let wanted = min(count, room(for: purpose))
    guard wanted > 0 else { return nil }
    switch purpose {
    case .metadata: return takeMetadata(upTo: wanted)
    case .data, .promised:
      if let near, let run = takeNear(near, upTo: wanted) { return run }
      if let run = takeNext(upTo: wanted, fragments) { return run }
      // The last free blocks may be those kept for nodes.
      guard fragments == .always, !metadataRun.isEmpty else { return nil }
      freeMetadataRun()
      return takeNext(upTo: wanted, fragments)
    }
  }

  private mutating func takeMetadata(upTo wanted: UInt64) -> PhysicalRun? {
    if metadataRun.isEmpty {
      guard let run = findNext(fragmentLimit) ?? findNext(1) else { return nil }
      let part = run.positions.prefix(Int(Self.metadataRunLength))
      run.group.take(part)
      metadataRun = run.group.blocks(part)
    }
    let taken = metadataRun.lowerBound..<metadataRun.lowerBound + min(wanted, metadataRun.length)
    metadataRun = taken.upperBound..<metadataRun.upperBound
    freeCount = freeCount.saturatingSubtract(taken.length)
    return PhysicalRun(block: taken.lowerBound, count: taken.length)
  }

  /// Ends the run that is kept for nodes: the next node begins another one.
  mutating func freeMetadataRun() {
    guard let number = geometry.group(of: metadataRun.lowerBound), let group = groups[number] else { return }
    let start = Int(geometry.indexInGroup(of: metadataRun.lowerBound))
    group.clear(start..<start + Int(metadataRun.length))
    metadataRun = 0..<0
  }

  private mutating func takeNear(_ block: UInt64, upTo wanted: UInt64) -> PhysicalRun? {
    guard let number = geometry.group(of: block), let group = groups[number],
      let positions = group.free(at: Int(geometry.indexInGroup(of: block)), upTo: clipped(wanted))
    else { return nil }
    return take(positions, of: group)
  }

  private mutating func takeNext(upTo wanted: UInt64, _ fragments: FragmentUse) -> PhysicalRun? {
    // What is shorter than a fragment wants no more than its own length.
    var found = findNext(min(clipped(wanted), fragmentLimit))
    if found == nil, fragments == .always || hasManyFragments { found = findNext(1) }
    guard let (group, positions) = found else { return nil }
    let run = take(positions.prefix(clipped(wanted)), of: group)
    cursor = run.block + run.count
    return run
  }

  private mutating func take(_ positions: Range<Int>, of group: SpaceGroup) -> PhysicalRun {
    group.take(positions)
    freeCount = freeCount.saturatingSubtract(UInt64(positions.count))
    return PhysicalRun(block: group.blocks(positions).lowerBound, count: UInt64(positions.count))
  }

  /// The first free run of at least `wanted` blocks, at most a group, from the cursor on and then from the start. The run may
  /// be longer than what it says.
  private func findNext(_ wanted: Int) -> (group: SpaceGroup, positions: Range<Int>)? {
    guard !ordered.isEmpty else { return nil }
    let first = geometry.group(of: cursor) ?? 0
    let start = ordered.index(ofGroup: first)
    // The group of the cursor comes twice: from the cursor on, and in the end from its start.
    for step in 0...ordered.count {
      let group = ordered[(start + step) % ordered.count]
      guard group.longestRun >= wanted else { continue }
      let isCursors = step == 0 && group.number == first && cursor >= group.firstBlock
      if let found = group.findFree(wanted, from: isCursors ? Int(geometry.indexInGroup(of: cursor)) : 0) {
        return (group, found)
      }
    }
    return nil
  }

  /// A number of blocks, as a count within one group.
  private func clipped(_ count: UInt64) -> Int { Int(min(count, geometry.blocksPerGroup)) }
}

extension Range<Int> {
  /// The first `count` positions, or all where there are fewer.
  func prefix(_ count: Int) -> Range<Int> { lowerBound..<Swift.min(upperBound, lowerBound + count) }
}
