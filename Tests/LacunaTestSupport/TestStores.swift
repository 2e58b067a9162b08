package import BlockStores
package import Bytes
package import Extents

/// An extent store that does what the one below it does, but less conveniently: it hands out short runs, never near what
/// was asked for, and its calls fail by plan. Hooks see each read and write before it happens.
package struct AwkwardExtentStore<Base: ExtentStore>: ExtentStore {
  package let base: Base
  /// The longest run that an allocation returns.
  private let longestRun: UInt64
  package let faults = FaultPlan()
  private let beforeReading: @Sendable (_ block: UInt64) -> Void
  private let beforeWriting: @Sendable (_ block: UInt64) -> Void

  package init(
    _ base: Base, longestRun: UInt64 = .max, beforeReading: @escaping @Sendable (UInt64) -> Void = { _ in },
    beforeWriting: @escaping @Sendable (UInt64) -> Void = { _ in }
  ) {
    (self.base, self.longestRun) = (base, longestRun)
    (self.beforeReading, self.beforeWriting) = (beforeReading, beforeWriting)
  }

  package var blockSize: BlockSize { base.blockSize }

  package func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    try faults.step("allocate")
    return try base.allocate(min(count, longestRun), near: longestRun == .max ? near : nil)
  }

  package func free(_ run: PhysicalRun) throws(StoreError) {
    try faults.step("free", freeing: run.count)
    try base.free(run)
  }

  package func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    try faults.step("read")
    beforeReading(block)
    try base.read(into: buffer, from: block, skip: skip)
  }

  package func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    try faults.step("write")
    beforeWriting(block)
    try base.write(bytes, to: block, skip: skip)
  }

  package func open(_ inode: Inode) throws(StoreError) -> OpenInode { try base.open(inode) }

  package func extents(of inode: Inode) throws(StoreError) -> ExtentMap {
    try faults.step("extents")
    return try base.extents(of: inode)
  }

  package func setExtents(_ extents: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try faults.step("setExtents")
    try base.setExtents(extents, of: inode, changed: changed)
  }

  package func isShared(_ run: PhysicalRun) -> Bool { base.isShared(run) }

  package func removeExtents(of inode: Inode) throws(StoreError) {
    try faults.step("removeExtents")
    try base.removeExtents(of: inode)
  }

  package func sync() throws(StoreError) {
    try faults.step("sync")
    try base.sync()
  }
}

extension AwkwardExtentStore: COWStore where Base: COWStore {
  @discardableResult
  package func clone(_ source: Inode, to destination: Inode) throws(StoreError) -> OpenInode {
    try faults.step("clone")
    return try base.clone(source, to: destination)
  }

  package func referenceCount(of block: UInt64) throws(StoreError) -> UInt64 { try base.referenceCount(of: block) }

  package func breakSharing(of inode: Inode, in blocks: Range<UInt64>) throws(StoreError) -> ExtentMap {
    try faults.step("breakSharing")
    return try base.breakSharing(of: inode, in: blocks)
  }
}

/// A block-chain store whose calls fail by plan.
package struct FaultyBlockChainStore<Base: BlockChainStore>: BlockChainStore {
  package let base: Base
  package let faults = FaultPlan()

  package init(_ base: Base) { self.base = base }

  package var blockSize: BlockSize { base.blockSize }

  package func allocateBlock() throws(StoreError) -> UInt64 {
    try faults.step("allocateBlock")
    return try base.allocateBlock()
  }

  package func freeBlock(_ block: UInt64) throws(StoreError) {
    try faults.step("freeBlock", freeing: 1)
    try base.freeBlock(block)
  }

  package func readBlock(
    _ block: UInt64, into buffer: UnsafeMutableRawBufferPointer, skip: Int
  ) throws(StoreError) {
    try faults.step("readBlock")
    try base.readBlock(block, into: buffer, skip: skip)
  }

  package func writeBlock(_ block: UInt64, _ bytes: UnsafeRawBufferPointer, skip: Int) throws(StoreError) {
    try faults.step("writeBlock")
    try base.writeBlock(block, bytes, skip: skip)
  }

  package func open(_ inode: Inode) throws(StoreError) -> OpenInode { try base.open(inode) }

  package func chain(of inode: Inode) throws(StoreError) -> BlockChain {
    try faults.step("chain")
    return try base.chain(of: inode)
  }

  package func setChain(_ chain: BlockChain, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try faults.step("setChain")
    try base.setChain(chain, of: inode, changed: changed)
  }

  package func removeChain(of inode: Inode) throws(StoreError) {
    try faults.step("removeChain")
    try base.removeChain(of: inode)
  }

  package func sync() throws(StoreError) {
    try faults.step("sync")
    try base.sync()
  }
}

/// A byte store whose calls fail by plan.
package struct FaultyByteStore<Base: ByteStore>: ByteStore {
  package let base: Base
  package let faults = FaultPlan()

  package init(_ base: Base) { self.base = base }

  package func read(
    _ inode: Inode, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StoreError) -> Int {
    try faults.step("read")
    return try base.read(inode, into: buffer, at: offset)
  }

  package func write(_ inode: Inode, _ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    try faults.step("write")
    try base.write(inode, bytes, at: offset)
  }

  package func zero(_ inode: Inode, in range: Range<UInt64>) throws(StoreError) {
    try faults.step("zero")
    try base.zero(inode, in: range)
  }

  package func truncate(_ inode: Inode, to byteCount: UInt64) throws(StoreError) {
    try faults.step("truncate")
    try base.truncate(inode, to: byteCount)
  }

  package func remove(_ inode: Inode) throws(StoreError) {
    try faults.step("remove")
    try base.remove(inode)
  }

  package func byteCount(of inode: Inode) throws(StoreError) -> UInt64 {
    try faults.step("byteCount")
    return try base.byteCount(of: inode)
  }
}

/// The files over a block-based store, seen as a byte store: so the suite for byte stores also tests the files.
package final class FilesAsByteStore<Backing: FileBacking>: ByteStore {
  private let backing: Backing
  private let files = Locked<[Inode: BlockFile<Backing>]>([:])

  package init(_ backing: Backing) { self.backing = backing }

  private func file(_ inode: Inode) throws(StoreError) -> BlockFile<Backing> {
    try files.withLock { files throws(StoreError) in
      if let file = files[inode] { return file }
      let file = try BlockFile(backing, inode: inode)
      files[inode] = file
      return file
    }
  }

  package func read(
    _ inode: Inode, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64
  ) throws(StoreError) -> Int {
    try file(inode).read(into: buffer, at: offset)
  }

  package func write(_ inode: Inode, _ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    try file(inode).write(bytes, at: offset)
  }

  package func zero(_ inode: Inode, in range: Range<UInt64>) throws(StoreError) {
    try file(inode).zero(in: range, keepsSpace: false)
  }

  package func truncate(_ inode: Inode, to byteCount: UInt64) throws(StoreError) {
    try file(inode).truncate(to: byteCount)
  }

  package func remove(_ inode: Inode) throws(StoreError) { try file(inode).remove() }

  package func byteCount(of inode: Inode) throws(StoreError) -> UInt64 { try file(inode).byteCount }
}

// Reading and writing arrays, for tests.

extension ByteStore {
  /// The bytes from `offset` on, up to `count`. The buffer is not zero before, so that bytes left alone show.
  package func bytes(_ inode: Inode, at offset: UInt64, count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    let found = try bytes.withUnsafeMutableBytes { try read(inode, into: $0, at: offset) }
    try check(bytes[found...].allSatisfy { $0 == 0xEE }, "a read of \(found) bytes changed bytes behind them")
    return Array(bytes[..<found])
  }

  package func write(_ inode: Inode, _ bytes: [UInt8], at offset: UInt64) throws {
    try bytes.withUnsafeBytes { try write(inode, $0, at: offset) }
  }
}

extension BlockFile {
  /// The bytes from `offset` on, up to `count`.
  package func bytes(at offset: UInt64, count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    let found = try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
    try check(bytes[found...].allSatisfy { $0 == 0xEE }, "a read of \(found) bytes changed bytes behind them")
    return Array(bytes[..<found])
  }

  package func write(_ bytes: [UInt8], at offset: UInt64) throws {
    try bytes.withUnsafeBytes { try write($0, at: offset) }
  }

  /// All of its extents, as `forEachExtent` tells them for `range`.
  package func extents(in range: Range<UInt64> = 0..<UInt64.max) -> [FileExtent] {
    var extents: [FileExtent] = []
    forEachExtent(in: range) { bytes, kind in
      extents.append(FileExtent(bytes, kind))
      return true
    }
    return extents
  }
}

/// One answer of `BlockFile.forEachExtent`.
package struct FileExtent: Hashable, CustomStringConvertible {
  package var bytes: Range<UInt64>
  package var kind: RangeContent

  package init(_ bytes: Range<UInt64>, _ kind: RangeContent) { (self.bytes, self.kind) = (bytes, kind) }

  package var description: String { "\(kind) \(bytes)" }
}

extension ExtentStore {
  package func bytes(from block: UInt64, skip: Int = 0, count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    try bytes.withUnsafeMutableBytes { try read(into: $0, from: block, skip: skip) }
    return bytes
  }

  package func write(_ bytes: [UInt8], to block: UInt64, skip: Int = 0) throws {
    try bytes.withUnsafeBytes { try write($0, to: block, skip: skip) }
  }
}

extension BlockChainStore {
  package func bytes(of block: UInt64, skip: Int = 0, count: Int) throws -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    try bytes.withUnsafeMutableBytes { try readBlock(block, into: $0, skip: skip) }
    return bytes
  }

  package func writeBlock(_ block: UInt64, _ bytes: [UInt8], skip: Int = 0) throws {
    try bytes.withUnsafeBytes { try writeBlock(block, $0, skip: skip) }
  }
}
