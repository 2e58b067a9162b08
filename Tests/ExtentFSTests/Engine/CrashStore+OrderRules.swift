import Devices
import ExtentFS
import LacunaTestSupport

extension CrashStore {
  /// Where the journal is.
  static var journalBytes: Range<UInt64> { StoreGeometry.journalOffset..<StoreGeometry.journalOffset + 65536 }

  /// What the trees of the newest superblock reach is not written again while it counts, and all of it is durable first.
  static var orderRules: OrderRules {
    let slots = (0..<StoreGeometry.superblockSlotCount).map { slot in
      let start = StoreGeometry.superblockOffset(ofSlot: slot)
      return start..<start + UInt64(Superblock.encodedByteCount)
    }
    return OrderRules(commitRanges: slots, exemptRanges: [journalBytes]) { image in
      let device = CrashDevice(image, records: false)
      let superblocks = slots.compactMap { range -> Superblock? in
        guard range.upperBound <= image.byteCount else { return nil }
        return try? Superblock(decoding: image.bytes(range).span.bytes)
      }
      guard let newest = superblocks.max(by: { $0.generation < $1.generation }) else { return [] }
      return try ReachedBlocks(device, newest).ranges
    }
  }
}

/// All blocks that a superblock's trees lead to, slots of bitmaps and checksums included.
private struct ReachedBlocks {
  private let nodes: NodeCache
  private let geometry: StoreGeometry
  private(set) var ranges: [Range<UInt64>] = []

  init(_ device: CrashDevice, _ superblock: Superblock) throws {
    geometry = superblock.geometry
    nodes = NodeCache(device: device, blockSize: geometry.blockSize, byteLimit: 1 << 20)
    var inodes: [(UInt64, InodeRecord)] = []
    try walk(superblock.names, .names, owner: 0) { _, _, _ in }
    try walk(superblock.inodes, .inodes, owner: 0) { _, leaf, index in
      inodes.append((leaf.key(at: index), try leaf.withValue(at: index) { try InodeRecord(decoding: $0, at: 0) }))
    }
    try walk(superblock.space, .space, owner: 0) { reached, leaf, index in
      let record = try leaf.withValue(at: index) { try GroupRecord(decoding: $0, at: 0) }
      reached.add(record, ofGroup: leaf.key(at: index))
    }
    for (inode, record) in inodes {
      for extent in record.inlineExtents { add(extent) }
      try walk(record.extents, .extents, owner: inode) { reached, leaf, index in reached.add(leaf.extent(at: index)) }
    }
  }

  private mutating func add(_ block: UInt64, count: UInt64 = 1) {
    let start = geometry.blockSize.offset(of: block)
    ranges.append(start..<start + geometry.blockSize.offset(of: count))
  }

  private mutating func add(_ extent: ExtentRecord) {
    if let block = extent.target.physicalBlock { add(block, count: UInt64(extent.length)) }
  }

  private mutating func add(_ record: GroupRecord, ofGroup group: UInt64) {
    add(geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot))
    for index in 0..<StoreGeometry.checksumBlocksPerGroup where record.checksumPresent >> UInt32(index) & 1 == 1 {
      add(geometry.checksumBlock(ofGroup: group, index: index, slot: Int(record.checksumSlots >> UInt32(index) & 1)))
    }
  }

  private mutating func walk(
    _ root: TreeRoot, _ kind: NodeKind, owner: UInt64, _ visit: (inout ReachedBlocks, Node, Int) throws -> Void
  ) throws {
    if !root.isEmpty { try walk(try nodes.root(root, kind: kind, owner: owner), visit) }
  }

  private mutating func walk(_ node: Node, _ visit: (inout ReachedBlocks, Node, Int) throws -> Void) throws {
    add(node.pointer.block)
    for index in 0..<node.count {
      if node.level == 0 {
        try visit(&self, node, index)
      } else {
        try walk(try nodes.child(of: node, at: index, upper: nil).node, visit)
      }
    }
  }
}
