import Bytes
import Checksums
import Devices
import Extents
import LacunaTestSupport

@testable import ExtentFS

/// Makes stores whose volumes share blocks, by its own bookkeeping: a count for each block. It shares with the engine only the
/// merge of extents, which tells it what is given up.
final class StoreForge: TreeWriter {
  let device: MemoryDevice
  let cache: NodeCache
  let geometry: StoreGeometry
  let generation: UInt64 = 9
  var superblock: Superblock
  var inodes: [UInt64: InodeRecord] = [:]
  /// The places that lead to each block in use.
  var references: [UInt64: UInt64] = [:]
  private(set) var nodeBlocks: Set<UInt64> = []
  /// What a test makes wrong of the bytes that the store would have.
  var changesTable: (inout [KeyedEdit]) -> Void = { _ in }
  var changesSuperblock: (inout Superblock) -> Void = { _ in }
  var changesBitmap: (inout Bitmap, UInt64) -> Void = { _, _ in }
  /// Inodes without an entry in the tree of names though they have one.
  var extraNames: [UInt64: UInt64] = [:]

  private var next: UInt64
  private var reservedBlock: UInt64?
  private var sums: [UInt64: UInt32] = [:]
  private var blockByteCount: UInt64 { UInt64(geometry.blockSize.byteCount) }

  init(groupCount: UInt64 = 3) throws {
    guard let blockSize = BlockSize(byteCount: 1024) else { throw CheckFailure("the block size") }
    geometry = try StoreGeometry(blockSize: blockSize, journalByteCount: 65536)
    let blockCount = geometry.firstBlock(ofGroup: groupCount)
    device = try MemoryDevice(byteCount: blockCount * 1024)
    cache = NodeCache(device: device, blockSize: blockSize, byteLimit: 4 << 20)
    superblock = Superblock(
      uuid: StoreUUID(tag: 7, rest: 8), geometry: geometry, generation: 9, blockCount: blockCount)
    superblock.groupCount = groupCount
    superblock.add(.snapshots)
    next = geometry.headBlockCount
  }

  // MARK: What merges ask

  func allocateBlock() throws(ExtentFSError) -> UInt64 {
    let block: UInt64
    if let reserved = reservedBlock {
      block = reserved
      reservedBlock = nil
    } else {
      block = takeBlock()
    }
    references[block] = 1
    nodeBlocks.insert(block)
    return block
  }

  private func takeBlock() -> UInt64 {
    while geometry.indexInGroup(of: next) < StoreGeometry.metadataBlocksPerGroup { next += 1 }
    defer { next += 1 }
    return next
  }

  /// Leaves blocks free, so that what comes next is in another group, or does not continue what is there.
  func skip(_ count: UInt64) { next += count }

  func write(_ node: Node) throws(ExtentFSError) {
    do throws(DeviceError) {
      try node.withBytes { bytes throws(DeviceError) in
        try device.write(bytes, at: geometry.blockSize.offset(of: node.pointer.block))
      }
    } catch { throw ExtentFSError(error) }
  }

  func freeNode(_ block: UInt64) throws(ExtentFSError) { drop(block) }
  func freeData(_ run: PhysicalRun) throws(ExtentFSError) { for block in run.blocks { drop(block) } }
  func isShared(_ block: UInt64) throws(ExtentFSError) -> Bool { references[block, default: 0] > 1 }

  func retainChildren(of node: Node) throws(ExtentFSError) {
    for index in 0..<node.count {
      if node.level > 0 {
        references[node.child(at: index).block, default: 0] += 1
      } else {
        retain(node.extent(at: index))
      }
    }
  }

  private func retain(_ extent: ExtentRecord) {
    guard let block = extent.target.physicalBlock else { return }
    for block in block..<block + UInt64(extent.length) { references[block, default: 0] += 1 }
  }

  /// Returns whether nothing leads to the block any more.
  @discardableResult private func drop(_ block: UInt64) -> Bool {
    references[block, default: 0] -= 1
    guard references[block] == 0 else { return false }
    references[block] = nil
    nodeBlocks.remove(block)
    return true
  }

  // MARK: Volumes

  /// A new inode without anything in it.
  func make(_ name: String, _ kind: InodeRecord.Kind = .volume, blockCount: UInt64) -> UInt64 {
    let inode = superblock.nextInode
    superblock.nextInode += 1
    inodes[inode] = InodeRecord(kind: kind, name: name, byteCount: blockCount * 1024, createdSeconds: inode)
    return inode
  }

  func change(_ inode: UInt64, _ body: (inout InodeRecord) -> Void) {
    if var record = inodes[inode] {
      body(&record)
      inodes[inode] = record
    }
  }

  /// Merges edits into an inode's tree; where `isInline`, the extents go into the record, of which there must be none yet.
  func merge(_ edits: [ExtentEdit], into inode: UInt64, isInline: Bool = false) throws {
    guard var record = inodes[inode] else { throw CheckFailure("inode \(inode) is not there") }
    if isInline {
      record.inlineExtents = edits.compactMap { edit in
        edit.target.map {
          ExtentRecord(
            logical: edit.blocks.lowerBound, length: UInt32(edit.blocks.upperBound - edit.blocks.lowerBound), target: $0
          )
        }
      }
      for extent in record.inlineExtents {
        let count = UInt64(extent.length)
        if extent.target.physicalBlock == nil { record.reservedBlocks += count } else { record.mappedBlocks += count }
      }
    } else {
      let result = try TreeMerge(cache: cache, writer: self).mergeExtents(
        root: record.extents, owner: inode, edits: edits)
      record.extents = result.root
      record.mappedBlocks = UInt64(Int64(record.mappedBlocks) + result.mappedBlocks)
      record.reservedBlocks = UInt64(Int64(record.reservedBlocks) + result.reservedBlocks)
    }
    inodes[inode] = record
  }

  /// New data for logical blocks, contiguous on the device.
  func data(_ blocks: Range<UInt64>) throws -> ExtentEdit {
    let first = takeRun(blocks.upperBound - blocks.lowerBound)
    for index in 0..<blocks.upperBound - blocks.lowerBound {
      let block = first + index
      let bytes = (0..<1024).map { UInt8(truncatingIfNeeded: UInt64($0) &* 31 &+ block) }
      try bytes.withUnsafeBytes { try device.write($0, at: block * 1024) }
      sums[block] = bytes.withUnsafeBytes { CRC32C.checksum($0) }
      references[block] = 1
    }
    return ExtentEdit(blocks, .physical(first))
  }

  private func takeRun(_ count: UInt64) -> UInt64 {
    while true {
      let first = takeBlock()
      let group = geometry.group(of: first)
      guard geometry.group(of: first + count - 1) == group else {
        next = geometry.firstBlock(ofGroup: (group ?? 0) + 1)
        continue
      }
      next = first + count
      return first
    }
  }

  /// A clone, or a snapshot, of an inode.
  func clone(_ source: UInt64, _ name: String, _ kind: InodeRecord.Kind = .volume) throws -> UInt64 {
    guard var record = inodes[source] else { throw CheckFailure("inode \(source) is not there") }
    let inode = make(name, kind, blockCount: 0)
    (record.name, record.kind, record.origin, record.isReadOnly) = (name, kind, source, kind == .snapshot)
    (record.isThrowaway, record.quotaBlocks, record.reservationBlocks) = (false, 0, 0)
    inodes[inode] = record
    if record.extents.isEmpty {
      record.inlineExtents.forEach(retain)
    } else {
      references[record.extents.pointer.block]? += 1
    }
    return inode
  }

  /// Gives an inode up, and all that nothing else leads to.
  func remove(_ inode: UInt64) throws {
    guard let record = inodes.removeValue(forKey: inode) else { return }
    for extent in record.inlineExtents { give(up: extent) }
    if !record.extents.isEmpty { try giveUp(record.extents.pointer, level: record.extents.height - 1) }
  }

  private func giveUp(_ pointer: BlockPointer, level: Int) throws {
    let node = try cache.node(pointer, kind: .extents, level: level, owner: 0)
    guard drop(pointer.block) else { return }
    for index in 0..<node.count {
      if level > 0 { try giveUp(node.child(at: index), level: level - 1) } else { give(up: node.extent(at: index)) }
    }
  }

  private func give(up extent: ExtentRecord) {
    guard let block = extent.target.physicalBlock else { return }
    for block in block..<block + UInt64(extent.length) { drop(block) }
  }

  // MARK: The store

  /// Writes all that volumes do not have of themselves, the superblock last.
  func finish() throws {
    let merge = TreeMerge(cache: cache, writer: self)
    var table = sharedRuns()
    changesTable(&table)
    superblock.shared = try merge.mergeKeyed(root: .empty, kind: .shared, edits: table)
    superblock.inodes = try merge.mergeKeyed(
      root: .empty, kind: .inodes,
      edits: inodes.sorted { $0.key < $1.key }.map { inode, record in
        KeyedEdit(key: inode, value: encoded(512) { record.encode(into: &$0, at: 0) })
      })
    superblock.names = try merge.mergeKeyed(root: .empty, kind: .names, edits: names())
    let spaceBlock = takeBlock()
    references[spaceBlock] = 1
    nodeBlocks.insert(spaceBlock)
    let groups = Set(references.keys.compactMap { geometry.group(of: $0) }).sorted()
    let records = try groups.map { group in
      let record = try writeGroup(group)
      return KeyedEdit(key: group, value: encoded(152) { record.encode(into: &$0, at: 0) })
    }
    reservedBlock = spaceBlock
    superblock.space = try merge.mergeKeyed(root: .empty, kind: .space, edits: records)
    superblock.usedBlockCount = UInt64(references.count)
    superblock.nodeBlockCount = UInt64(nodeBlocks.count)
    superblock.transientCount = UInt64(inodes.values.count { $0.isTransient })
    superblock.reservedBlockCount = inodes.values.reduce(0) { $0 + $1.promisedBlocks }
    changesSuperblock(&superblock)
    let bytes = encoded(4096) { superblock.encode(into: &$0) }
    for slot in 0..<2 {
      try bytes.withUnsafeBytes { try device.write($0, at: StoreGeometry.superblockOffset(ofSlot: slot)) }
    }
  }

  private func names() -> [KeyedEdit] {
    var names = extraNames
    for (inode, record) in inodes.sorted(by: { $0.key < $1.key }) where !record.isTransient {
      var key = NameHash.key(of: record.name)
      while names[key] != nil { key &+= 1 }
      names[key] = inode
    }
    return names.sorted { $0.key < $1.key }.map { key, inode in
      KeyedEdit(key: key, value: encoded(8) { $0.store(inode, at: 0) })
    }
  }

  private func sharedRuns() -> [KeyedEdit] {
    var runs: [(first: UInt64, record: SharedRecord)] = []
    for (block, count) in references.sorted(by: { $0.key < $1.key }) where count > 1 {
      if let last = runs.last, last.first + last.record.length == block, last.record.count == count {
        runs[runs.count - 1].record.length += 1
      } else {
        runs.append((block, SharedRecord(length: 1, count: count)))
      }
    }
    return runs.map { run in KeyedEdit(key: run.first, value: encoded(16) { run.record.encode(into: &$0, at: 0) }) }
  }

  private func writeGroup(_ group: UInt64) throws -> GroupRecord {
    let first = geometry.firstBlock(ofGroup: group)
    var bitmap = Bitmap(count: Int(geometry.blocksPerGroup))
    bitmap.insert(0..<66)
    for block in references.keys where geometry.group(of: block) == group {
      let index = Int(block - first)
      bitmap.insert(index..<index + 1)
    }
    changesBitmap(&bitmap, group)
    var record = GroupRecord(freeCount: UInt32(bitmap.count - bitmap.setCount))
    record.bitmapSlot = 1
    record.bitmapChecksum = try device.writeMetadataBlock(
      geometry.bitmapBlock(ofGroup: group, slot: 1), geometry.blockSize
    ) { bitmap.copy(to: $0) }
    for page in 0..<32 {
      let blocks = first + UInt64(page) * 256..<first + UInt64(page + 1) * 256
      guard blocks.contains(where: { sums[$0] != nil }) else { continue }
      record.checksumPresent |= 1 << UInt32(page)
      record.checksums[page] = try device.writeMetadataBlock(
        geometry.checksumBlock(ofGroup: group, index: page, slot: 0), geometry.blockSize
      ) { bytes in
        for (index, block) in blocks.enumerated() {
          bytes.storeBytes(of: (sums[block] ?? 0).littleEndian, toByteOffset: 4 * index, as: UInt32.self)
        }
      }
    }
    return record
  }
}

extension StoreForge {
  /// The bytes of the device.
  func contents() throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: Int(device.byteCount))
    try bytes.withUnsafeMutableBytes { try device.read(into: $0, at: 0) }
    return bytes
  }

  /// A store of a volume with a tree of two levels, a snapshot and a clone of it that has changes, and a small volume with a clone.
  static func sample() throws -> (forge: StoreForge, disk: UInt64, snapshot: UInt64, clone: UInt64) {
    let forge = try StoreForge()
    let disk = forge.make("disk", blockCount: 1000)
    var edits: [ExtentEdit] = []
    for start in stride(from: 0 as UInt64, to: 600, by: 4) {
      edits.append(try forge.data(start..<start + 2))
      forge.skip(1)
    }
    try forge.merge(edits + [ExtentEdit(700..<750, .unwritten)], into: disk)
    let snapshot = try forge.clone(disk, "disk@monday", .snapshot)
    let clone = try forge.clone(disk, "clone")
    try forge.merge([try forge.data(100..<105), ExtentEdit(300..<310, nil)], into: disk)
    forge.skip(geometryGroup)
    try forge.merge([try forge.data(0..<1), try forge.data(900..<950)], into: clone)
    let small = forge.make("small", blockCount: 20)
    try forge.merge([try forge.data(1..<5), ExtentEdit(7..<9, .unwritten)], into: small, isInline: true)
    _ = try forge.clone(small, "small@a.b", .snapshot)
    return (forge, disk, snapshot, clone)
  }

  /// The blocks of a group, so that what follows is in the next one.
  private static var geometryGroup: UInt64 { 8192 }
}

extension BlockDevice {
  /// Writes a block that `fill` makes, and returns its ``MetadataChecksum``.
  func writeMetadataBlock(
    _ block: UInt64, _ blockSize: BlockSize, _ fill: (UnsafeMutableRawBufferPointer) -> Void
  ) throws(DeviceError) -> UInt32 {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 64)
    defer { buffer.deallocate() }
    fill(buffer)
    try write(UnsafeRawBufferPointer(buffer), at: blockSize.offset(of: block))
    return MetadataChecksum.checksum(UnsafeRawBufferPointer(buffer), block: block)
  }
}
