public import Bytes
public import Extents

/// An extent store in memory whose files can share blocks.
///
/// Untouched blocks cost no memory, and freed ones give theirs back. Nothing outlives the store.
///
/// Thread safety: the table of mappings and the reference counts are each guarded by a lock of their own, never held
/// together with another except that a clone takes `files`, then that of the open inodes or `shared`. Bytes are read and written without a lock.
public final class MemoryExtentStore: COWStore {
  private let space: MemorySpace
  private let files = Locked<[Inode: ExtentMap]>(rank: .memoryFiles, [:])
  private let openInodes = OpenInodes()
  /// Runs of blocks with two and more references; an allocated block in no run has one.
  private let shared = Locked(rank: .memoryShared, RunMap<Count>())

  private struct Count: RunValue {
    var references: UInt64
    func advanced(by count: UInt64) -> Count { self }
  }

  /// A store of `blockCount` blocks, of which the first is never used. Up to `residentLimit` free blocks keep their
  /// memory, so that they need not be fetched from the system again.
  ///
  /// - Throws: `.outOfRange` or `.deviceFailed` where the system has no addresses for so many blocks.
  public init(
    blockSize: BlockSize = .standard, blockCount: UInt64, residentLimit: UInt64 = 16384
  ) throws(StoreError) {
    space = try MemorySpace(blockSize: blockSize, blockCount: blockCount, residentLimit: residentLimit)
  }

  public var blockSize: BlockSize { space.blockSize }

  /// How many blocks are free.
  public var freeBlockCount: UInt64 { space.freeCount }

  public func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    try space.allocate(count, near: near)
  }

  public func isShared(_ run: PhysicalRun) -> Bool {
    shared.withLock { $0.firstRun(endingAfter: run.block)?.positions.lowerBound ?? .max < run.blocks.upperBound }
  }

  public func free(_ run: PhysicalRun) throws(StoreError) {
    guard space.isAllocated(run) else { throw .notAllocated(run) }
    // A block with one reference gains no other while that one is given up.
    guard isShared(run) else { return try space.free(run) }
    var last: [PhysicalRun] = []
    shared.withLock { shared in
      let before = shared
      before.forEachPiece(in: run.blocks) { blocks, count in
        if let count {
          shared.replace(blocks, with: count.references > 2 ? Count(references: count.references - 1) : nil)
        } else {
          last.append(PhysicalRun(block: blocks.lowerBound, count: blocks.length))
        }
        return true
      }
    }
    for run in last { try space.free(run) }
  }

  public func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    try unsafe space.read(into: buffer, from: block, skip: skip)
  }

  public func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    try unsafe space.write(bytes, to: block, skip: skip)
  }

  public func open(_ inode: Inode) throws(StoreError) -> OpenInode { try openInodes.open(inode) }

  public func extents(of inode: Inode) throws(StoreError) -> ExtentMap {
    files.withLock { $0[inode] } ?? ExtentMap()
  }

  public func setExtents(_ extents: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    files.withLock { $0[inode] = extents }
  }

  public func removeExtents(of inode: Inode) throws(StoreError) {
    files.withLock { _ = $0.removeValue(forKey: inode) }
  }

  /// Does nothing: memory has no medium to be durable on.
  public func sync() throws(StoreError) {}

  @discardableResult
  public func clone(_ source: Inode, to destination: Inode) throws(StoreError) -> OpenInode {
    try files.withLock { files throws(StoreError) in
      guard files[destination] == nil else {
        throw StoreError(.wrongInode, "inode \(destination) has a mapping already")
      }
      let opened = try openInodes.open(destination)
      let extents = files[source] ?? ExtentMap()
      shared.withLock { shared in
        extents.runs.forEachRun(in: 0..<UInt64.max) { extent in
          guard let block = extent.value.physicalBlock else { return true }
          let before = shared
          before.forEachPiece(in: block..<block + extent.positions.length) { blocks, count in
            shared.replace(blocks, with: Count(references: (count?.references ?? 1) + 1))
            return true
          }
          return true
        }
      }
      files[destination] = extents
      return opened
    }
  }

  public func referenceCount(of block: UInt64) throws(StoreError) -> UInt64 {
    if let count = shared.withLock({ $0.run(at: block)?.value }) { return count.references }
    return space.isAllocated(PhysicalRun(block: block, count: 1)) ? 1 : 0
  }

  public func breakSharing(of inode: Inode, in blocks: Range<UInt64>) throws(StoreError) -> ExtentMap {
    let opened = try open(inode)
    defer { withExtendedLifetime(opened) {} }
    let before = try extents(of: inode)
    var after = before
    var copies: [PhysicalRun] = []
    var originals: [PhysicalRun] = []
    do {
      try before.runs.forEachRun(in: blocks) { extent throws(StoreError) in
        guard let source = extent.value.physicalBlock else { return true }
        let shared = shared.withLock { $0 }
        try shared.forEachRun(in: source..<source + extent.positions.length) { run throws(StoreError) in
          originals.append(PhysicalRun(block: run.positions.lowerBound, count: run.positions.length))
          var logical = extent.positions.lowerBound + (run.positions.lowerBound - source)
          var next = run.positions
          while !next.isEmpty {
            let copy = try space.allocate(next.length, near: nil)
            copies.append(copy)
            try copyBlocks(from: next.lowerBound, to: copy)
            after.replace(logical..<logical + copy.count, with: .physical(copy.block))
            logical += copy.count
            next = next.lowerBound + copy.count..<next.upperBound
          }
          return true
        }
        return true
      }
      try setExtents(after, of: inode, changed: blocks)
    } catch {
      for copy in copies { try space.free(copy) }
      throw error
    }
    for original in originals { try free(original) }
    return after
  }

  private func copyBlocks(from source: UInt64, to destination: PhysicalRun) throws(StoreError) {
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 16)
    defer { unsafe buffer.deallocate() }
    for index in 0..<destination.count {
      try unsafe space.read(into: buffer, from: source + index, skip: 0)
      try unsafe space.write(UnsafeRawBufferPointer(buffer), to: destination.block + index, skip: 0)
    }
  }
}
