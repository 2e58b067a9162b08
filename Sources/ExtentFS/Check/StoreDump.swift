internal import Bytes
internal import Checksums
package import Devices
internal import Extents

/// Shows what is in a block of a store, by where it is and by what is there, and says where a checksum is wrong.
///
/// What cannot be decoded is shown as far as it can be: no bytes are a mistake of the caller. On a store in use it shows
/// what the superblock leads to that it was made with; blocks that were given up since may hold other things by now.
package struct StoreDump {
  let device: any BlockDevice
  let superblock: Superblock
  let nodes: NodeCache
  var geometry: StoreGeometry { superblock.geometry }
  var size: UInt64 { UInt64(geometry.blockSize.byteCount) }

  /// Shows blocks of the store on `device` as `superblock` describes it; nil for the newest one there.
  ///
  /// - Throws: where there is no superblock to begin with.
  package init(_ device: any BlockDevice, at superblock: Superblock? = nil) throws(ExtentFSError) {
    if let superblock {
      self.superblock = superblock
    } else {
      self.superblock = try device.newestSuperblock().superblock
    }
    self.device = device
    nodes = NodeCache(device: device, blockSize: self.superblock.geometry.blockSize, byteLimit: 1 << 20)
  }

  /// How many blocks the device has.
  package var blockCount: UInt64 { device.byteCount >> geometry.blockSize.shift }

  /// What is in `block`.
  ///
  /// - Throws: `.invalidArgument` where the device has no such block; `.device` where it cannot be read.
  package func dump(_ block: UInt64) throws(ExtentFSError) -> BlockDump {
    guard block < blockCount else {
      throw ExtentFSError(.invalidArgument, "there is no block \(block): the device has \(blockCount)")
    }
    let bytes = try read(block * size, Int(size))
    if block < geometry.headBlockCount { return try dumpHead(block, bytes) }
    guard let group = geometry.group(of: block), block < superblock.blockCount,
      group < geometry.groupCount(inDeviceOf: superblock.blockCount)
    else {
      var dump = BlockDump(block, .unused)
      dump.lines = HexDump.lines(bytes)
      return dump
    }
    let index = geometry.indexInGroup(of: block)
    guard index >= StoreGeometry.metadataBlocksPerGroup else { return try dumpFixed(block, group, Int(index), bytes) }
    return try dumpContents(block, group, bytes)
  }

  func read(_ offset: UInt64, _ count: Int) throws(ExtentFSError) -> [UInt8] {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    do { try unsafe device.read(into: buffer, at: offset) } catch { throw ExtentFSError(error) }
    // Safe: the buffer lives during the copy.
    return unsafe Array(UnsafeRawBufferPointer(buffer))
  }

  /// What `body` gives; nil, with its error among the problems of `dump`, where what it reads is damaged.
  func tolerate<Result>(
    _ dump: inout BlockDump, _ body: () throws(ExtentFSError) -> Result?
  ) throws(ExtentFSError) -> Result? {
    do throws(ExtentFSError) {
      return try body()
    } catch {
      guard error.code == .damaged else { throw error }
      dump.problems.append(error.facts)
      return nil
    }
  }

  /// The record of a group; nil where it was never used.
  func groupRecord(of group: UInt64) throws(ExtentFSError) -> GroupRecord? {
    let reader = TreeReader(cache: nodes, root: superblock.space, kind: .space)
    return try reader.find(group)?.withValue { value throws(ExtentFSError) in try GroupRecord(decoding: value, at: 0) }
  }

  // MARK: Data and nodes

  private func dumpContents(_ block: UInt64, _ group: UInt64, _ bytes: [UInt8]) throws(ExtentFSError) -> BlockDump {
    var found = BlockDump(block, .free)
    let record = try tolerate(&found) { () throws(ExtentFSError) in try groupRecord(of: group) }
    let isUsed = try record.flatMap { record throws(ExtentFSError) in
      try tolerate(&found) { () throws(ExtentFSError) in try bitmapHas(block, record, group) }
    }
    // Safe: every bit pattern is a byte.
    let header = unsafe NodeHeader(decoding: bytes.span.bytes).flatMap { $0.block == block ? $0 : nil }
    let problems = found.problems
    if isUsed == true, let header,
      let pointer = try tolerate(&found, { () throws(ExtentFSError) in try pointer(to: header) })
    {
      // Something leads to it as to a node, whatever is there.
      return dumpNode(block, bytes, header, expected: pointer, problems)
    }
    found.problems = problems
    if isUsed == true, let record {
      let expected = try tolerate(&found) { () throws(ExtentFSError) in try dataChecksum(of: block, record, group) }
      // Safe: the array lives during the call.
      let sum = unsafe bytes.withUnsafeBytes { unsafe CRC32C.checksum($0) }
      if let header, expected != sum { return dumpNode(block, bytes, header, expected: nil, problems) }
      found.kind = .data
      found.add("checksum", sum.hex)
      if let expected, expected != sum {
        found.problems.append("its checksum is \(sum.hex), and should be \(expected.hex)")
      }
      found.add("references", try tolerate(&found) { () throws(ExtentFSError) in try references(of: block) } ?? 0)
    } else if let header {
      // What was here before it was given up.
      found.add("left over", "a node of kind \(header.kind) and level \(header.level)")
    }
    found.lines += HexDump.lines(bytes)
    return found
  }

  private func bitmapHas(_ block: UInt64, _ record: GroupRecord, _ group: UInt64) throws(ExtentFSError) -> Bool {
    let index = Int(geometry.indexInGroup(of: block))
    return try unsafe device.withMetadataBlock(
      geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot), geometry.blockSize, checksum: record.bitmapChecksum
    ) { unsafe $0[index / 8] >> UInt8(index % 8) & 1 == 1 }
  }

  /// The checksum that a block of data should have.
  private func dataChecksum(
    of block: UInt64, _ record: GroupRecord, _ group: UInt64
  ) throws(ExtentFSError) -> UInt32 {
    let (page, index) = geometry.indexInGroup(of: block).quotientAndRemainder(dividingBy: geometry.checksumsPerBlock)
    guard record.checksumPresent >> UInt32(page) & 1 == 1 else { return 0 }
    return try unsafe device.withMetadataBlock(
      geometry.checksumBlock(ofGroup: group, index: Int(page), slot: Int(record.checksumSlots >> UInt32(page) & 1)),
      geometry.blockSize, checksum: record.checksums[Int(page)]
    ) { unsafe UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: Int(index) * 4, as: UInt32.self)) }
  }

  /// How many places lead to a block that is in use.
  func references(of block: UInt64) throws(ExtentFSError) -> UInt64 {
    let reader = TreeReader(cache: nodes, root: superblock.shared, kind: .shared)
    guard let entry = try reader.floor(block) else { return 1 }
    let record = try entry.withValue { value throws(ExtentFSError) in try SharedRecord(decoding: value, at: 0) }
    return block - entry.key < record.length ? record.count : 1
  }
}
