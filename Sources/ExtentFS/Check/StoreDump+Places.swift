internal import Bytes

extension StoreDump {
  // MARK: Before the groups

  func dumpHead(_ block: UInt64, _ bytes: [UInt8]) throws(ExtentFSError) -> BlockDump {
    let range = block * size..<(block + 1) * size
    for slot in 0..<StoreGeometry.superblockSlotCount {
      let start = StoreGeometry.superblockOffset(ofSlot: slot)
      if range.overlaps(start..<start + UInt64(Superblock.encodedByteCount)) { return try dumpSuperblock(block, slot) }
    }
    if range.lowerBound >= StoreGeometry.journalOffset { return try dumpJournal(block, range) }
    var dump = BlockDump(block, .unused)
    dump.lines = HexDump.lines(bytes)
    return dump
  }

  private func dumpSuperblock(_ block: UInt64, _ slot: Int) throws(ExtentFSError) -> BlockDump {
    var dump = BlockDump(block, .superblock)
    dump.add("slot", slot)
    let bytes = try read(StoreGeometry.superblockOffset(ofSlot: slot), Superblock.encodedByteCount)
    let found = try tolerate(&dump) { () throws(ExtentFSError) -> Superblock? in
      do throws(ExtentFSError) {
        // Safe: every bit pattern is a byte.
        return try unsafe Superblock(decoding: bytes.span.bytes)
      } catch {
        // Whatever is wrong with it is something to show.
        throw ExtentFSError(.damaged, error.facts)
      }
    }
    guard let found else {
      dump.lines = HexDump.lines(bytes)
      return dump
    }
    dump.add("counts", found.generation == superblock.generation ? "yes" : "no: the other one is newer")
    dump.add("UUID", found.uuid)
    dump.add("features", Self.features(of: found))
    dump.add("block size", found.geometry.blockSize.byteCount)
    dump.add("generation", found.generation)
    dump.add("blocks", found.blockCount)
    dump.add("used blocks", found.usedBlockCount)
    dump.add("groups", found.groupCount)
    dump.add("journal length", found.geometry.journalByteCount)
    dump.add("journal tail", found.journalTailOffset)
    dump.add("journal tail sequence", found.journalTailSequence)
    dump.add("journal epoch", found.journalEpoch)
    dump.add("next inode", found.nextInode)
    dump.add("default inode", found.defaultInode)
    dump.add("created", found.createdSeconds)
    if found.has(.snapshots) {
      dump.add("node blocks", found.nodeBlockCount)
      dump.add("promised blocks", found.reservedBlockCount)
      dump.add("transient inodes", found.transientCount)
    }
    if found.has(.limit) { dump.add("limit", found.limitByteCount) }
    for (name, root) in [
      ("inodes", found.inodes), ("names", found.names), ("space", found.space), ("shared runs", found.shared),
    ] { dump.add("tree of \(name)", Self.describe(root)) }
    return dump
  }

  private static func features(of superblock: Superblock) -> String {
    let all = [
      ("compatible", StoreFeature.Class.compatible, superblock.compatibleFeatures),
      ("read-only compatible", .readOnlyCompatible, superblock.readOnlyCompatibleFeatures),
      ("incompatible", .incompatible, superblock.incompatibleFeatures),
    ].filter { $0.2 != 0 }.map { "\($0.0) \(FeatureTable.describe($0.2, $0.1, superblock.featureNames))" }
    return all.isEmpty ? "none" : all.joined(separator: "; ")
  }

  static func describe(_ root: TreeRoot) -> String {
    root.isEmpty ? "empty" : "\(describe(root.pointer)), \(root.height) levels"
  }

  static func describe(_ pointer: BlockPointer) -> String {
    "block \(pointer.block), generation \(pointer.generation), checksum \(pointer.checksum.hex)"
  }

  // MARK: The journal

  /// Records that have bytes in the block, of whichever epoch.
  private func dumpJournal(_ block: UInt64, _ range: Range<UInt64>) throws(ExtentFSError) -> BlockDump {
    var dump = BlockDump(block, .journal)
    let ring = geometry.journalRegion
    let longest = UInt64(JournalFormat.recordByteCountMax)
    let start = max(ring.lowerBound, range.lowerBound - min(range.lowerBound, longest & ~7))
    let end = min(ring.upperBound, range.upperBound + longest)
    let bytes = try read(start, Int(end - start))
    dump.add("bytes of the ring", "\(range.lowerBound - ring.lowerBound) to \(range.upperBound - ring.lowerBound - 1)")
    let tail = ring.lowerBound + superblock.journalTailOffset
    if range.contains(tail) { dump.add("tail", "at byte \(superblock.journalTailOffset) of the ring") }
    var offset = 0
    while start + UInt64(offset) < range.upperBound, offset + JournalFormat.headerByteCount <= bytes.count {
      let record = JournalText(bytes, at: offset, tag: superblock.uuid.tag, currentEpoch: superblock.journalEpoch)
      let place = start + UInt64(offset)
      if let record, place + UInt64(record.byteCount) > range.lowerBound {
        dump.lines.append("at byte \(place - ring.lowerBound) of the ring: \(record.text)")
        if let problem = record.problem { dump.problems.append(problem) }
      }
      // A record before this block is passed by only where it reaches into it: one that is long gone may seem to lie over it.
      let reachesIn = record.map { place + UInt64($0.byteCount) > range.lowerBound } ?? false
      offset += reachesIn ? record?.byteCount ?? 8 : 8
    }
    if dump.lines.isEmpty { dump.lines = ["no records of this store"] }
    return dump
  }

  // MARK: The blocks of a group with fixed places

  func dumpFixed(_ block: UInt64, _ group: UInt64, _ index: Int, _ bytes: [UInt8]) throws(ExtentFSError) -> BlockDump {
    var dump = BlockDump(block, index < 2 ? .bitmap : .checksums)
    dump.add("group", group)
    dump.add("slot", index & 1)
    let record = try tolerate(&dump) { () throws(ExtentFSError) in try groupRecord(of: group) }
    let page = UInt32(max(0, index / 2 - 1))
    var expected: UInt32?
    if let record {
      let slot = index < 2 ? record.bitmapSlot : Int(record.checksumSlots >> page & 1)
      if slot == index & 1, index < 2 || record.checksumPresent >> page & 1 == 1 {
        expected = index < 2 ? record.bitmapChecksum : record.checksums[Int(page)]
      }
    }
    dump.add("in use", expected == nil ? "no" : "yes")
    // Safe: the array lives during the call.
    let sum = unsafe bytes.withUnsafeBytes { unsafe MetadataChecksum.checksum($0, block: block) }
    dump.add("checksum", sum.hex)
    if let expected, expected != sum {
      dump.problems.append("its checksum is \(sum.hex), and should be \(expected.hex)")
    }
    let first = geometry.firstBlock(ofGroup: group)
    if index < 2 {
      addBitmap(bytes, first, record, expected != nil, &dump)
    } else {
      addChecksums(bytes, first + UInt64(page) * geometry.checksumsPerBlock, &dump)
    }
    return dump
  }

  private func addBitmap(
    _ bytes: [UInt8], _ first: UInt64, _ record: GroupRecord?, _ isInUse: Bool, _ dump: inout BlockDump
  ) {
    // Safe: the array lives during the call.
    let bitmap = unsafe bytes.withUnsafeBytes { unsafe Bitmap(bytes: $0) }
    let freeCount = bitmap.count - bitmap.setCount
    dump.add("free blocks", freeCount)
    if isInUse, let record, Int(record.freeCount) != freeCount {
      dump.problems.append("\(freeCount) blocks are free, and the group counts \(record.freeCount)")
    }
    var next = 0
    while let start = bitmap.firstSet(from: next, before: bitmap.count) {
      next = bitmap.firstClear(from: start, before: bitmap.count) ?? bitmap.count
      dump.lines.append("used: blocks \(first + UInt64(start)) to \(first + UInt64(next) - 1)")
    }
  }

  private func addChecksums(_ bytes: [UInt8], _ first: UInt64, _ dump: inout BlockDump) {
    dump.add("of blocks", "\(first) to \(first + geometry.checksumsPerBlock - 1)")
    for start in stride(from: 0, to: bytes.count, by: 32) {
      // Safe: every bit pattern is a byte; blocks are multiples of 32 bytes.
      let sums = (0..<8).map { unsafe bytes.span.bytes.uint32(at: start + 4 * $0) }
      guard sums.contains(where: { $0 != 0 }) else { continue }
      let text = sums.map { String($0.hex.dropFirst(2)) }.joined(separator: " ")
      dump.lines.append("from block \(first + UInt64(start / 4)): \(text)")
    }
  }
}

/// A record of a journal as text.
private struct JournalText {
  var byteCount: Int
  var text: String
  var problem: String?

  /// Nil where no record of the store is at `offset`.
  init?(_ bytes: [UInt8], at offset: Int, tag: UInt64, currentEpoch: UInt64) {
    // Safe: the caller knows that a header is inside; the array lives during the call.
    let epoch = unsafe bytes.span.bytes.uint64(at: offset + 16)
    let identity = JournalIdentity(storeTag: tag, epoch: epoch)
    let found = unsafe bytes.withUnsafeBytes { buffer -> (Int, UInt64, UInt64, JournalRecord?)? in
      // Safe: as above; what is checked does not leave the closure.
      guard let record = unsafe CheckedJournalRecord(UnsafeRawBufferPointer(rebasing: buffer[offset...]), identity)
      else { return nil }
      return (record.byteCount, record.sequence, record.durableSequence, try? record.decoded())
    }
    guard let (byteCount, sequence, durable, record) = found else { return nil }
    self.byteCount = byteCount
    let life = epoch == currentEpoch ? "" : " of epoch \(epoch)"
    let change =
      switch record?.change {
      case .map(let inode, let logical, let physical, let sums)?:
        "map: inode \(inode), logical blocks \(logical) to \(logical + UInt64(sums.count) - 1), at block \(physical)"
      case .unmap(let inode, let blocks)?:
        "unmap: inode \(inode), logical blocks \(blocks.lowerBound) to \(blocks.upperBound - 1)"
      case .reserve(let inode, let blocks)?:
        "reserve: inode \(inode), logical blocks \(blocks.lowerBound) to \(blocks.upperBound - 1)"
      case .commitMarker?: "marker"
      case nil: "invalid fields"
      }
    text = "record \(sequence)\(life), durable \(durable), \(byteCount) bytes: \(change)"
    if record == nil { problem = "record \(sequence) has a right checksum and invalid fields" }
  }
}
