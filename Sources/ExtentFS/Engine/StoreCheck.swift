internal import BlockStores
internal import Bytes
package import Devices

/// Reads a whole store as its newest superblock describes it, and says what is wrong with it. It writes nothing.
///
/// It does not trust the engine's bookkeeping: it walks every tree, notes each block that it meets, and only then compares
/// with the bitmaps and counts on the device. What the journal holds is not part of it: run it on a store that was recovered,
/// or closed. The device must not change meanwhile. Memory: one bit for each block of the device, and a few nodes.
package struct StoreCheck<Device: BlockDevice> {
  private let device: Device
  private let superblock: Superblock
  private let nodes: NodeCache<Device>
  private var geometry: StoreGeometry { superblock.geometry }
  /// The blocks met so far, by group.
  private var reached: [UInt64: Bitmap] = [:]
  private var reachedCount: UInt64 = 0
  private var records: [UInt64: GroupRecord] = [:]
  /// The volumes by inode.
  private var inodes: [UInt64: InodeRecord] = [:]
  /// The inodes by the keys of their names.
  private var names: [UInt64: UInt64] = [:]
  /// What is wrong, each with the path to it.
  private(set) var findings: [String] = []

  /// Everything that is wrong with the store on `device`; empty where nothing is.
  ///
  /// - Parameter readsData: also reads every block of every volume and compares its checksum.
  /// - Throws: where there is no superblock to begin with, or the device cannot be read.
  package static func findings(on device: Device, readsData: Bool = true) throws(ExtentFSError) -> [String] {
    var check = StoreCheck(device, try device.newestSuperblock().superblock)
    try check.run(readsData: readsData)
    return check.findings
  }

  private init(_ device: Device, _ superblock: Superblock) {
    self.device = device
    self.superblock = superblock
    nodes = NodeCache(device: device, blockSize: superblock.geometry.blockSize, byteLimit: 4 << 20)
  }

  private mutating func run(readsData: Bool) throws(ExtentFSError) {
    try walk(superblock.space, .space, owner: 0, "space tree") { check, leaf, index throws(ExtentFSError) in
      let group = leaf.key(at: index)
      check.records[group] = try leaf.withValue(at: index) { value throws(ExtentFSError) in
        try GroupRecord(decoding: value, at: 0)
      }
    }
    try walk(superblock.names, .names, owner: 0, "names") { check, leaf, index throws(ExtentFSError) in
      check.names[leaf.key(at: index)] = leaf.withValue(at: index) { $0.uint64(at: 0) }
    }
    try walk(superblock.shared, .shared, owner: 0, "shared table") { _, _, _ throws(ExtentFSError) in }
    try walk(superblock.inodes, .inodes, owner: 0, "inodes") { check, leaf, index throws(ExtentFSError) in
      let record = try leaf.withValue(at: index) { value throws(ExtentFSError) in
        try InodeRecord(decoding: value, at: 0)
      }
      check.inodes[leaf.key(at: index)] = record
      try check.checkVolume(leaf.key(at: index), record, readsData: readsData)
    }
    checkNames()
    try checkBitmaps()
    checkNumbers()
  }

  /// Compares the superblock's numbers with what was found.
  private mutating func checkNumbers() {
    if reachedCount != superblock.usedBlockCount {
      findings.append(
        "the superblock counts \(superblock.usedBlockCount) used blocks, and the trees reach \(reachedCount)")
    }
    let groupCount = geometry.groupCount(inDeviceOf: superblock.blockCount)
    if superblock.groupCount != groupCount {
      findings.append(
        "the superblock counts \(superblock.groupCount) groups, and \(superblock.blockCount) blocks have \(groupCount)")
    }
    if let last = inodes.keys.max(), superblock.nextInode <= last {
      findings.append("the superblock says that the next inode is \(superblock.nextInode), and \(last) is in use")
    }
    if superblock.defaultInode != 0, inodes[superblock.defaultInode] == nil {
      findings.append("the superblock's default inode \(superblock.defaultInode) is not there")
    }
  }

  /// Each name leads to an inode, and each inode has one name, which is found where it is looked for.
  private mutating func checkNames() {
    var named: [UInt64: UInt64] = [:]
    for (key, inode) in names.sorted(by: { $0.key < $1.key }) {
      guard let record = inodes[inode] else {
        findings.append("the name at key \(key) leads to inode \(inode), which is not there")
        continue
      }
      if let other = named.updateValue(key, forKey: inode) {
        findings.append("inode \(inode) '\(record.name)': two names lead to it, at keys \(other) and \(key)")
      }
      var probe = NameHash.key(of: record.name)
      while probe != key, names[probe] != nil { probe &+= 1 }
      if probe != key {
        findings.append("inode \(inode) '\(record.name)': its name is at key \(key), where it is not looked for")
      }
    }
    for (inode, record) in inodes.sorted(by: { $0.key < $1.key }) where named[inode] == nil {
      findings.append("inode \(inode) '\(record.name)': no name leads to it")
    }
  }

  /// Calls `visit` with each entry of a tree, notes its nodes, and goes on behind what cannot be read.
  private mutating func walk(
    _ root: TreeRoot, _ kind: NodeKind, owner: UInt64, _ path: String,
    _ visit: (inout StoreCheck, Node, Int) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    guard !root.isEmpty else { return }
    do throws(ExtentFSError) {
      try walk(try nodes.root(root, kind: kind, owner: owner), upper: nil, "\(path)", visit)
    } catch {
      try note(error, path)
    }
  }

  private mutating func walk(
    _ node: Node, upper: UInt64?, _ path: String,
    _ visit: (inout StoreCheck, Node, Int) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    let path = "\(path) > block \(node.pointer.block)"
    reach(PhysicalRun(block: node.pointer.block, count: 1), path)
    for index in 0..<node.count {
      do throws(ExtentFSError) {
        if node.level == 0 {
          try visit(&self, node, index)
        } else {
          let (child, upper) = try nodes.child(of: node, at: index, upper: upper)
          try walk(child, upper: upper, path, visit)
        }
      } catch {
        try note(error, path)
      }
    }
  }

  /// Keeps what is wrong with the store; what is wrong with the device ends the check.
  private mutating func note(_ error: ExtentFSError, _ path: String) throws(ExtentFSError) {
    guard error.code == .damaged else { throw error }
    findings.append("\(path): \(error.facts)")
  }

  private mutating func checkVolume(
    _ inode: UInt64, _ record: InodeRecord, readsData: Bool
  ) throws(ExtentFSError) {
    let path = "volume '\(record.name)' (inode \(inode))"
    let end = geometry.blockSize.blocks(toHold: record.byteCount)
    var (mapped, reserved, next): (UInt64, UInt64, UInt64) = (0, 0, 0)
    func check(_ extent: ExtentRecord, _ check: inout StoreCheck) throws(ExtentFSError) {
      if extent.logical < next { check.findings.append("\(path): extents overlap at block \(extent.logical)") }
      next = extent.blocks.upperBound
      if next > end { check.findings.append("\(path): an extent passes the end, block \(end)") }
      guard let block = extent.target.physicalBlock else {
        reserved += UInt64(extent.length)
        return
      }
      mapped += UInt64(extent.length)
      let run = PhysicalRun(block: block, count: UInt64(extent.length))
      if check.reach(run, "\(path), block \(extent.logical)"), readsData {
        try check.checkData(run, "\(path), block \(extent.logical)")
      }
    }
    for extent in record.inlineExtents { try check(extent, &self) }
    try walk(record.extents, .extents, owner: inode, path) { checker, leaf, index throws(ExtentFSError) in
      try check(leaf.extent(at: index), &checker)
    }
    if mapped != record.mappedBlocks || reserved != record.reservedBlocks {
      findings.append(
        "\(path): counts \(record.mappedBlocks) mapped and \(record.reservedBlocks) reserved blocks, and has \(mapped) and \(reserved)"
      )
    }
  }

  /// Notes blocks that something leads to; false where they are none of the store's, or something else leads to them too.
  @discardableResult
  private mutating func reach(_ run: PhysicalRun, _ path: String) -> Bool {
    for block in run.block..<run.block + min(run.count, superblock.blockCount + 1) {
      guard let group = geometry.group(of: block), block < superblock.blockCount,
        geometry.indexInGroup(of: block) >= StoreGeometry.metadataBlocksPerGroup
      else {
        findings.append("\(path): leads to block \(block), which is none for data or nodes")
        return false
      }
      let index = Int(geometry.indexInGroup(of: block))
      // Taken out, so that it changes in place.
      var bitmap = reached.removeValue(forKey: group) ?? Bitmap(count: Int(geometry.blocksPerGroup))
      let isMet = bitmap.contains(index)
      bitmap.insert(index..<index + 1)
      reached[group] = bitmap
      guard !isMet else {
        findings.append("\(path): leads to block \(block), and so does something else")
        return false
      }
      reachedCount += 1
    }
    return true
  }

  /// How many findings there may be before data is no longer looked at.
  private static var findingCountMax: Int { 10_000 }

  private mutating func checkData(_ run: PhysicalRun, _ path: String) throws(ExtentFSError) {
    let size = geometry.blockSize.byteCount
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 4096)
    defer { unsafe buffer.deallocate() }
    for block in run.blocks {
      // A file with holes can claim more bad blocks than there is memory for what is said of them.
      guard findings.count < Self.findingCountMax else { return }
      do { try unsafe device.read(into: buffer, at: geometry.blockSize.offset(of: block)) } catch {
        throw ExtentFSError(error)
      }
      let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(buffer))
      guard let expected = try checksum(of: block, path) else { return }
      if found != expected {
        findings.append("\(path): block \(block) has the checksum \(found), and \(expected) was expected")
      }
    }
  }

  /// The checksum of a block of data as stored; nil, with a finding, where that cannot be read.
  private mutating func checksum(of block: UInt64, _ path: String) throws(ExtentFSError) -> UInt32? {
    guard let group = geometry.group(of: block), let record = records[group] else {
      findings.append("\(path): block \(block) is in a group without a record")
      return nil
    }
    let (page, index) = geometry.indexInGroup(of: block).quotientAndRemainder(dividingBy: geometry.checksumsPerBlock)
    guard record.checksumPresent >> UInt32(page) & 1 == 1 else { return 0 }
    let slot = Int(record.checksumSlots >> UInt32(page) & 1)
    do throws(ExtentFSError) {
      return try unsafe device.withMetadataBlock(
        geometry.checksumBlock(ofGroup: group, index: Int(page), slot: slot), geometry.blockSize,
        checksum: record.checksums[Int(page)]
      ) { unsafe $0.loadUnaligned(fromByteOffset: Int(index) * 4, as: UInt32.self).littleEndian }
    } catch {
      try note(error, path)
      return nil
    }
  }

  /// Compares the bitmaps with the blocks that were reached.
  private mutating func checkBitmaps() throws(ExtentFSError) {
    for group in reached.keys where records[group] == nil {
      findings.append("group \(group): the trees lead into it, and it has no record")
    }
    for (group, record) in records.sorted(by: { $0.key < $1.key }) {
      do throws(ExtentFSError) {
        let stored = try unsafe device.withMetadataBlock(
          geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot), geometry.blockSize,
          checksum: record.bitmapChecksum
        ) { unsafe Bitmap(bytes: $0) }
        if stored.count - stored.setCount != Int(record.freeCount) {
          findings.append(
            "group \(group): counts \(record.freeCount) free blocks, and its bitmap has \(stored.count - stored.setCount)"
          )
        }
        var expected = reached[group] ?? Bitmap(count: Int(geometry.blocksPerGroup))
        expected.insert(0..<Int(StoreGeometry.metadataBlocksPerGroup))
        guard stored != expected else { continue }
        for index in 0..<Int(geometry.blocksPerGroup) where stored.contains(index) != expected.contains(index) {
          let block = geometry.firstBlock(ofGroup: group) + UInt64(index)
          findings.append(
            stored.contains(index)
              ? "group \(group): block \(block) is marked as used, and nothing leads to it"
              : "group \(group): block \(block) is marked as free, and something leads to it")
          break
        }
      } catch {
        try note(error, "group \(group)")
      }
    }
  }
}
