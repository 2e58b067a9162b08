internal import Devices
internal import Extents

/// What a tree of extents, or a part of it, was found to hold.
struct Subtree {
  var pointer: BlockPointer
  var level: Int
  /// The first key, and where the last extent ends.
  var first: UInt64
  var end: UInt64
  /// Logical blocks with a physical one, and of reserved zeroes.
  var mapped: UInt64 = 0
  var reserved: UInt64 = 0
  /// Whether all of it could be read.
  var isWhole = true

  mutating func add(_ extent: ExtentRecord) {
    if extent.target.physicalBlock == nil { reserved += UInt64(extent.length) } else { mapped += UInt64(extent.length) }
    end = max(end, extent.blocks.upperBound)
  }

  mutating func add(_ child: Subtree?) {
    guard let child else {
      isWhole = false
      return
    }
    // Fits: extents that were verified not to overlap, below 2^62.
    mapped += child.mapped
    reserved += child.reserved
    end = max(end, child.end)
    isWhole = isWhole && child.isWhole
  }
}

extension StoreCheck {
  // MARK: The catalog

  /// Reads the groups' records and their bitmaps, at a point at which all of them are there; see ``StorePoints``.
  func readSpace() throws(ExtentFSError) {
    var spaceNodes: [(block: UInt64, path: String)] = []
    do throws(ExtentFSError) {
      try points.read { point throws(ExtentFSError) in
        (superblock, report, records, spaceNodes) = (point, StoreCheckReport(), [:], [])
        let blockCount = min(point.blockCount, device.byteCount >> geometry.blockSize.shift)
        census = BlockCensus(point.geometry, blockCount: blockCount)
        try walk(point.space, .space, "space tree", meet: { spaceNodes.append(($0, self.path)) }) {
          leaf, index throws(ExtentFSError) in
          records[leaf.key(at: index)] = try leaf.withValue(at: index) { value throws(ExtentFSError) in
            try GroupRecord(decoding: value, at: 0)
          }
        }
        var failure: ExtentFSError?
        for (group, record) in records {
          do throws(ExtentFSError) {
            try readBitmap(group, record, at: point)
          } catch {
            guard error.code == .damaged else { throw error }
            failure = failure ?? error
            report.note(Finding(.metadata, "group \(group)", error.facts, block: error.block))
          }
        }
        // Told once more, so that a newer point is looked at where there is one.
        if let failure { throw failure }
      }
    } catch {
      // What is in the report is at the newest point, and is all that can be known of it.
      guard error.code == .damaged else { throw error }
    }
    for node in spaceNodes { meetCatalogNode(node.block, node.path) }
  }

  private func readBitmap(_ group: UInt64, _ record: GroupRecord, at point: Superblock) throws(ExtentFSError) {
    guard group < geometry.groupCount(inDeviceOf: point.blockCount) else {
      throw ExtentFSError(.damaged, "the store has no such group")
    }
    census.add(group, stored: nil)
    census.add(group, stored: try bitmap(of: group, record))
  }

  /// The bitmap of a group as its record says.
  func bitmap(of group: UInt64, _ record: GroupRecord) throws(ExtentFSError) -> Bitmap {
    try unsafe device.withMetadataBlock(
      geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot), geometry.blockSize, checksum: record.bitmapChecksum
    ) { unsafe Bitmap(bytes: $0) }
  }

  func readShared() throws(ExtentFSError) {
    var end: UInt64 = 0
    try walkCatalog(superblock.shared, .shared, "refcount tree") { leaf, index throws(ExtentFSError) in
      let first = leaf.key(at: index)
      let record = try leaf.withValue(at: index) { value throws(ExtentFSError) in
        try SharedRecord(decoding: value, at: 0)
      }
      guard first < ExtentRecord.blockLimit else {
        throw ExtentFSError(.damaged, "a run of \(record.length) blocks begins at block \(first)")
      }
      if first < end {
        report.note(.references, path, "the run at block \(first) begins before the one before it ends, at \(end)")
      }
      end = max(end, first + record.length)
      table.replace(first..<first + record.length, with: ReferenceCount(count: record.count))
    }
    if !superblock.has(.snapshots), !superblock.shared.isEmpty {
      report.note(.feature, "", "the store has a refcount tree, and lacks the feature for it")
    }
  }

  func readNames() throws(ExtentFSError) {
    try walkCatalog(superblock.names, .names, "names") { leaf, index throws(ExtentFSError) in
      names[leaf.key(at: index)] = leaf.withValue(at: index) { $0.uint64(at: 0) }
    }
  }

  func readInodes() throws(ExtentFSError) {
    try walkCatalog(superblock.inodes, .inodes, "inodes") { leaf, index throws(ExtentFSError) in
      inodes[leaf.key(at: index)] = try leaf.withValue(at: index) { value throws(ExtentFSError) in
        try InodeRecord(decoding: value, at: 0)
      }
    }
  }

  private func walkCatalog(
    _ root: TreeRoot, _ kind: NodeKind, _ label: String, _ visit: (Node, Int) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    try walk(root, kind, label, meet: { self.meetCatalogNode($0, self.path) }, visit)
  }

  /// Counts a node of a tree that is never shared.
  private func meetCatalogNode(_ block: UInt64, _ path: String) {
    let (newCount, problem) = census.count(PhysicalRun(block: block, count: 1), as: .node)
    report.totals.catalogNodes += newCount
    if let problem {
      report.note(.references, path, problem)
    } else if newCount == 0 {
      report.note(.references, path, "references block \(block), and so does something else")
    }
  }

  /// Calls `visit` with each entry of a tree of the catalog and `meet` with its nodes, and goes on behind what cannot be read.
  private func walk(
    _ root: TreeRoot, _ kind: NodeKind, _ label: String, meet: (UInt64) -> Void,
    _ visit: (Node, Int) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    (self.label, trail) = (label, [])
    guard !root.isEmpty else { return }
    do throws(ExtentFSError) {
      try walk(try nodes.root(root, kind: kind, owner: 0), upper: nil, meet, visit)
    } catch {
      try note(error, path)
    }
  }

  private func walk(
    _ node: Node, upper: UInt64?, _ meet: (UInt64) -> Void, _ visit: (Node, Int) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) {
    trail.append(node.pointer.block)
    defer { trail.removeLast() }
    meet(node.pointer.block)
    for index in 0..<node.count {
      do throws(ExtentFSError) {
        if node.level == 0 {
          try visit(node, index)
        } else {
          let (child, upper) = try nodes.child(of: node, at: index, upper: upper)
          try walk(child, upper: upper, meet, visit)
        }
      } catch {
        try note(error, path)
      }
    }
  }

  // MARK: Extents

  /// Walks what an inode leads to, and compares it with its record.
  func checkInode(_ inode: UInt64, _ record: InodeRecord) throws(ExtentFSError) {
    label = record.label(inode)
    trail = []
    account = StoreCheckReport.Account(
      inode: inode, name: record.name, kind: record.kind, isThrowaway: record.isThrowaway)
    var sum = Subtree(pointer: .null, level: 0, first: 0, end: 0)
    for extent in record.inlineExtents { add(extent, to: &sum, isExclusive: true) }
    if !record.extents.isEmpty {
      let (pointer, level) = (record.extents.pointer, record.extents.height - 1)
      sum.add(try subtree(at: pointer, level: level, first: nil, upper: nil, isExclusive: true))
    }
    let end = geometry.blockSize.blocks(toHold: record.byteCount)
    if sum.end > end { report.note(.extent, label, "an extent passes the end, block \(end), and ends at \(sum.end)") }
    // What is deleted counts what it has at most: nobody reads the parts that it shares to count them.
    let isRight =
      record.kind == .deleted
      ? sum.mapped <= record.mappedBlocks && sum.reserved <= record.reservedBlocks
      : sum.mapped == record.mappedBlocks && sum.reserved == record.reservedBlocks
    if sum.isWhole, !isRight {
      report.note(
        .number, label,
        "counts \(record.mappedBlocks) mapped and \(record.reservedBlocks) unwritten blocks, and has \(sum.mapped) and \(sum.reserved)"
      )
    }
    if readsData { try checkEnd(of: record) }
    guard var account else { return }
    (account.mapped, account.reserved) = (sum.mapped, sum.reserved)
    report.totals.exclusiveData += account.exclusiveData
    report.totals.exclusiveNodes += account.exclusiveNodes
    report.accounts.append(account)
  }

  /// Walks the nodes below `pointer`, those that are shared only the first time; nil where what is there cannot be read, or
  /// something else leads to it and it is not known to be shared.
  private func subtree(
    at pointer: BlockPointer, level: Int, first: UInt64?, upper: UInt64?, isExclusive: Bool
  ) throws(ExtentFSError) -> Subtree? {
    if let known = sharedSubtrees[pointer.block] {
      guard known.pointer == pointer, known.level == level, first ?? known.first == known.first,
        upper.map({ known.end <= $0 }) ?? true
      else {
        report.note(
          .references, path, "references block \(pointer.block) with another pointer than the others that share it")
        return nil
      }
      return meetNode(pointer, isExclusive: false) == nil ? nil : known
    }
    let node: Node
    do throws(ExtentFSError) {
      node = try nodes.node(pointer, kind: .extents, level: level, owner: 0)
      guard first ?? node.key(at: 0) == node.key(at: 0), node.lies(below: upper) else {
        throw ExtentFSError(
          .damaged,
          "block \(pointer.block) has keys from \(node.key(at: 0)) to \(node.key(at: node.count - 1)), where its parent has \(first ?? 0) up to \(upper ?? .max)"
        ).about(block: pointer.block)
      }
    } catch {
      try note(error, path)
      return nil
    }
    trail.append(pointer.block)
    defer { trail.removeLast() }
    let isShared = table.run(at: pointer.block) != nil
    let isExclusive = isExclusive && !isShared
    guard meetNode(pointer, isExclusive: isExclusive) == .first else { return nil }
    try tell()
    var sum = Subtree(pointer: pointer, level: level, first: node.key(at: 0), end: 0)
    for index in 0..<node.count {
      if level == 0 {
        add(node.extent(at: index), to: &sum, isExclusive: isExclusive)
      } else {
        let next = index + 1 < node.count ? node.key(at: index + 1) : upper
        sum.add(
          try subtree(
            at: node.child(at: index), level: level - 1, first: node.key(at: index), upper: next,
            isExclusive: isExclusive))
      }
    }
    if isShared { sharedSubtrees[pointer.block] = sum }
    return sum
  }

  private enum Meeting { case first, again }

  /// Counts a node of a tree of extents; nil where it cannot be one.
  private func meetNode(_ pointer: BlockPointer, isExclusive: Bool) -> Meeting? {
    let (newCount, problem) = census.count(PhysicalRun(block: pointer.block, count: 1), as: .node)
    if let problem {
      report.note(.references, path, problem)
      return nil
    }
    if newCount == 0 { return .again }
    if isExclusive { account?.exclusiveNodes += 1 } else { report.totals.sharedNodes += 1 }
    return .first
  }

  private func add(_ extent: ExtentRecord, to sum: inout Subtree, isExclusive: Bool) {
    sum.add(extent)
    guard let block = extent.target.physicalBlock else { return }
    let run = PhysicalRun(block: block, count: UInt64(extent.length))
    let (newCount, problem) = census.count(run, as: .data)
    if let problem { report.note(.extent, "\(path), logical block \(extent.logical)", problem) }
    var exclusiveCount: UInt64 = 0
    if isExclusive {
      table.forEachPiece(in: run.blocks) { piece, value in
        if value == nil { exclusiveCount += piece.upperBound - piece.lowerBound }
        return true
      }
    }
    exclusiveCount = min(exclusiveCount, newCount)
    account?.exclusiveData += exclusiveCount
    report.totals.sharedData += newCount - exclusiveCount
  }
}

extension InodeRecord {
  /// What findings call the inode.
  func label(_ inode: UInt64) -> String {
    let what =
      switch kind {
      case .volume: isThrowaway ? "throwaway" : "volume"
      case .snapshot: "snapshot"
      case .deleted: "deleted"
      }
    return isTransient ? "\(what) inode \(inode)" : "\(what) '\(name)' (inode \(inode))"
  }
}
