internal import Bytes
internal import Checksums
internal import Devices
internal import Extents

/// A block whose data is not what its checksum says.
private struct Suspect {
  var block: UInt64
  var found: UInt32
  var expected: UInt32
}

/// What a checksum block says, and which of its blocks are in use by the same superblock.
private struct ChecksumPicture {
  /// Nil where the block was never written: then all are 0.
  var sums: ContiguousArray<UInt32>?
  /// By position in the group; nil where all that the check has met still is.
  var used: Bitmap?

  func sum(at index: Int) -> UInt32 { sums?[index] ?? 0 }
}

extension StoreCheck {
  private var blocksPerPage: Int { Int(geometry.checksumsPerBlock) }
  /// How much data is read at a time, in bytes.
  private static var readByteCountMax: Int { 1 << 20 }

  /// Holds every block of data against its checksum, in the order of the blocks on the device.
  func checkData() throws(ExtentFSError) {
    let count = max(1, Self.readByteCountMax / geometry.blockSize.byteCount)
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: count * geometry.blockSize.byteCount, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    var suspects: [Suspect] = []
    for (number, group) in census.groups.sorted(by: { $0.key < $1.key }) {
      let data = group.nodes.map { group.met.subtracting($0) } ?? group.met
      for page in 0..<StoreGeometry.checksumBlocksPerGroup {
        let positions = page * blocksPerPage..<(page + 1) * blocksPerPage
        // A file with holes can claim more bad blocks than there is memory for what is said of them.
        guard data.containsAny(of: positions), suspects.count < StoreCheckReport.findingCountMax else { continue }
        do throws(ExtentFSError) {
          suspects += try unsafe checkPage(page, of: number, data, positions, buffer)
        } catch {
          try note(error, "group \(number), checksum block \(page)")
        }
        try tell()
      }
    }
    guard !suspects.isEmpty else { return }
    do throws(ExtentFSError) { try confirm(suspects) } catch {
      try note(error, "\(suspects.count) blocks of data differ")
    }
  }

  /// Reads the blocks `data` of `positions`, which have one checksum block, at the newest point.
  private func checkPage(
    _ page: Int, of group: UInt64, _ data: Bitmap, _ positions: Range<Int>, _ buffer: UnsafeMutableRawBufferPointer
  ) throws(ExtentFSError) -> [Suspect] {
    let (suspects, verified, skipped) = try points.read { point throws(ExtentFSError) in
      let picture = try self.picture(of: page, ofGroup: group, at: point)
      let wanted = picture.used.map { data.intersection($0) } ?? data
      var suspects: [Suspect] = []
      var next = positions.lowerBound
      let pieceCount = buffer.count / geometry.blockSize.byteCount
      while let start = wanted.firstSet(from: next, before: positions.upperBound) {
        let end = wanted.firstClear(from: start, before: positions.upperBound) ?? positions.upperBound
        next = min(end, start + pieceCount)
        let first = geometry.firstBlock(ofGroup: group) + UInt64(start)
        try unsafe readSums(of: first, next - start, buffer) { index, found in
          let expected = picture.sum(at: start + index - positions.lowerBound)
          if found != expected {
            suspects.append(Suspect(block: first + UInt64(index), found: found, expected: expected))
          }
        }
      }
      let verified = wanted.setCount(of: positions)
      return (suspects, verified, data.setCount(of: positions) - verified)
    }
    report.verifiedBlockCount += UInt64(verified)
    report.skippedBlockCount += UInt64(skipped)
    return suspects
  }

  private func readSums(
    of first: UInt64, _ count: Int, _ buffer: UnsafeMutableRawBufferPointer, _ body: (Int, UInt32) -> Void
  ) throws(ExtentFSError) {
    let size = geometry.blockSize.byteCount
    // Safe: the caller's buffer holds `count` blocks, and lives during the call.
    let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<(count * size)])
    do throws(DeviceError) {
      try unsafe device.read(into: part, at: geometry.blockSize.offset(of: first))
    } catch {
      throw ExtentFSError(error)
    }
    for index in 0..<count {
      body(index, unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: part[index * size..<(index + 1) * size])))
    }
  }

  /// What a checksum block of a group says at `point`.
  private func picture(
    of page: Int, ofGroup group: UInt64, at point: Superblock
  ) throws(ExtentFSError) -> ChecksumPicture {
    let isSame = point.generation == superblock.generation
    var record = records[group]
    if !isSame {
      let reader = TreeReader(cache: nodes, root: point.space, kind: .space)
      record = try reader.find(group)?.withValue { value throws(ExtentFSError) in
        try GroupRecord(decoding: value, at: 0)
      }
    }
    guard let record else { throw ExtentFSError(.damaged, "group \(group) has no record any more") }
    let used = isSame ? nil : try bitmap(of: group, record)
    guard record.checksumPresent >> UInt32(page) & 1 == 1 else { return ChecksumPicture(sums: nil, used: used) }
    let slot = Int(record.checksumSlots >> UInt32(page) & 1)
    let count = blocksPerPage
    let sums = try unsafe device.withMetadataBlock(
      geometry.checksumBlock(ofGroup: group, index: page, slot: slot), geometry.blockSize,
      checksum: record.checksums[page]
    ) { bytes in
      ContiguousArray(
        (0..<count).map { index in
          // Safe: a block has four bytes for each of its checksums.
          UInt32(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: index * 4, as: UInt32.self))
        })
    }
    return ChecksumPicture(sums: sums, used: used)
  }

  /// Names what leads to the suspects at the newest point, and says of those that still are no data with a right checksum what
  /// is wrong.
  private func confirm(_ suspects: [Suspect]) throws(ExtentFSError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: geometry.blockSize.byteCount, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    let findings = try points.read { point throws(ExtentFSError) in
      // Checksum blocks first: they do not stay where they are.
      var expected: [UInt32?] = []
      var last: (page: UInt64, picture: ChecksumPicture)?
      for suspect in suspects {
        let group = geometry.group(of: suspect.block) ?? 0
        let position = geometry.indexInGroup(of: suspect.block)
        let (page, index) = position.quotientAndRemainder(dividingBy: geometry.checksumsPerBlock)
        let number = group * UInt64(StoreGeometry.checksumBlocksPerGroup) + page
        if last?.page != number { last = (number, try picture(of: Int(page), ofGroup: group, at: point)) }
        let isUsed = last?.picture.used?.contains(Int(position)) ?? true
        expected.append(isUsed ? last?.picture.sum(at: Int(index)) : nil)
      }
      let finder = BlockFinder(nodes, suspects.map { $0.block..<$0.block + 1 })
      try finder.look(in: point.generation == superblock.generation ? inodes : records(at: point))
      var findings: [Finding] = []
      for (index, suspect) in suspects.enumerated() {
        let places = finder.places[index].filter(\.isData).map(\.path)
        guard let expected = expected[index], !places.isEmpty else { continue }
        try unsafe readSums(of: suspect.block, 1, buffer) { _, found in
          guard found != expected else { return }
          findings.append(
            Finding(
              .data, places.joined(separator: "; "),
              "block \(suspect.block) has the checksum \(found), and \(expected) was expected",
              block: suspect.block))
        }
      }
      return findings
    }
    for finding in findings { report.note(finding) }
  }

  private func records(at point: Superblock) throws(ExtentFSError) -> [UInt64: InodeRecord] {
    var found: [UInt64: InodeRecord] = [:]
    try Catalog(nodes: nodes, superblock: point).forEach { inode, record in
      found[inode] = record
      return true
    }
    return found
  }
}
