internal import Extents

extension StoreDump {
  /// How many volumes are asked whether they have a node that is not in the tree it was written for.
  private static var askedInodeCountMax: Int { 4096 }

  /// What refers to the node that has `header`, found by going down its tree; nil where nothing in that place does.
  func pointer(to header: NodeHeader) throws(ExtentFSError) -> BlockPointer? {
    switch header.kind {
    case .inodes: return try pointer(to: header, in: superblock.inodes)
    case .names: return try pointer(to: header, in: superblock.names)
    case .space: return try pointer(to: header, in: superblock.space)
    case .shared: return try pointer(to: header, in: superblock.shared)
    case .extents: break
    }
    let catalog = Catalog(nodes: nodes, superblock: superblock)
    if let record = try catalog.record(of: header.owner), let found = try pointer(to: header, in: record.extents) {
      return found
    }
    var (found, askedCount): (BlockPointer?, Int) = (nil, 0)
    try catalog.forEach { _, record throws(ExtentFSError) in
      found = try pointer(to: header, in: record.extents)
      askedCount += 1
      return found == nil && askedCount < Self.askedInodeCountMax
    }
    return found
  }

  private func pointer(to header: NodeHeader, in root: TreeRoot) throws(ExtentFSError) -> BlockPointer? {
    guard !root.isEmpty, header.level < root.height else { return nil }
    var (pointer, level, upper): (BlockPointer, Int, UInt64?) = (root.pointer, root.height - 1, nil)
    let bytes = try read(header.block * size, Int(size))
    // Safe: every bit pattern is a byte; the first key is inside a block.
    let key = unsafe bytes.span.bytes.uint64(at: NodeHeader.encodedByteCount)
    var node: Node?
    while level > header.level {
      let parent: Node
      if let above = node {
        (parent, upper) = try nodes.child(of: above, at: above.index(atOrBefore: key) ?? 0, upper: upper)
      } else {
        parent = try nodes.root(root, kind: header.kind, owner: 0)
      }
      pointer = parent.child(at: parent.index(atOrBefore: key) ?? 0)
      node = parent
      level -= 1
    }
    return pointer.block == header.block ? pointer : nil
  }

  /// A node, with what refers to it where that was found.
  func dumpNode(
    _ block: UInt64, _ bytes: [UInt8], _ header: NodeHeader, expected: BlockPointer?, _ problems: [String]
  ) -> BlockDump {
    var dump = BlockDump(block, .node)
    dump.problems = problems
    dump.tree = header.kind
    dump.add("level", header.level)
    dump.add("entries", header.count)
    dump.add("generation", header.generation)
    dump.add("owner", header.owner)
    // Safe: the array lives during the call.
    let sum = unsafe bytes.withUnsafeBytes { unsafe MetadataChecksum.checksum($0, block: block) }
    dump.add("checksum", sum.hex)
    if let expected {
      if expected.checksum != sum {
        dump.problems.append("its checksum is \(sum.hex), and should be \(expected.checksum.hex)")
      }
      if expected.generation != header.generation {
        dump.problems.append("its generation is \(header.generation), and should be \(expected.generation)")
      }
    } else {
      dump.problems.append("nothing in the tree references it, so that its checksum cannot be compared")
    }
    if header.kind == .extents, expected != nil {
      do throws(ExtentFSError) {
        dump.add("references", try references(of: block))
      } catch {
        dump.problems.append(error.facts)
      }
    }
    let layout = NodeLayout(header.kind, level: header.level, blockByteCount: bytes.count)
    if header.count < 1 || header.count > layout.capacity {
      dump.problems.append("it has \(header.count) entries and room for \(layout.capacity)")
    }
    for index in 0..<min(header.count, layout.capacity) {
      let offset = NodeHeader.encodedByteCount + index * layout.entryByteCount
      // Safe: entries lie inside the block, and every bit pattern is a byte.
      let entry = unsafe bytes.span.bytes.extracting(offset..<offset + layout.entryByteCount)
      dump.lines.append(Self.describe(entry, header))
    }
    return dump
  }

  private static func describe(_ entry: RawSpan, _ header: NodeHeader) -> String {
    let key = entry.uint64(at: 0)
    guard header.level == 0 else { return "from \(key): \(describe(BlockPointer(decoding: entry, at: 8)))" }
    switch header.kind {
    case .extents:
      guard let extent = ExtentRecord(decoding: entry, at: 0) else {
        return "logical block \(key): an invalid extent"
      }
      return describe(extent)
    case .names:
      return "\(key.hex): inode \(entry.uint64(at: 8))"
    case .inodes:
      guard let record = try? InodeRecord(decoding: entry, at: 8) else {
        return "inode \(key): an invalid record"
      }
      return describe(key, record)
    case .space:
      guard let record = try? GroupRecord(decoding: entry, at: 8) else {
        return "group \(key): an invalid record"
      }
      let pages = (0..<32).filter { record.checksumPresent >> UInt32($0) & 1 == 1 }.map { page in
        "\(page) in slot \(record.checksumSlots >> UInt32(page) & 1), checksum \(record.checksums[page].hex)"
      }
      let sums = pages.isEmpty ? "none" : pages.joined(separator: "; ")
      return
        "group \(key): \(record.freeCount) free, bitmap in slot \(record.bitmapSlot), checksum \(record.bitmapChecksum.hex); checksum blocks: \(sums)"
    case .shared:
      guard let record = try? SharedRecord(decoding: entry, at: 8), key < ExtentRecord.blockLimit else {
        return "block \(key): an invalid run"
      }
      return "blocks \(key) to \(key + record.length - 1): \(record.count) references"
    }
  }

  private static func describe(_ extent: ExtentRecord) -> String {
    let blocks = "logical blocks \(extent.logical) to \(extent.blocks.upperBound - 1)"
    return extent.target.physicalBlock.map { "\(blocks): from block \($0)" } ?? "\(blocks): unwritten"
  }

  private static func describe(_ inode: UInt64, _ record: InodeRecord) -> String {
    var parts = [
      "\(record.label(inode)): \(record.byteCount) bytes", "\(record.mappedBlocks) mapped",
      "\(record.reservedBlocks) reserved",
    ]
    if record.isReadOnly { parts.append("read-only") }
    if record.origin != 0 { parts.append("made from inode \(record.origin)") }
    if record.quotaBlocks != 0 { parts.append("quota \(record.quotaBlocks)") }
    if record.reservationBlocks != 0 { parts.append("reservation \(record.reservationBlocks)") }
    parts.append("created \(record.createdSeconds)")
    parts.append("tree \(describe(record.extents))")
    return (parts + record.inlineExtents.map(describe)).joined(separator: ", ")
  }
}
