public import Bytes

/// An extent store over any byte store: the way for what has files of bytes to offer extents.
///
/// What it keeps in the byte store below, all numbers 64 bits wide and little-endian:
///
/// | inode below | contents |
/// | --- | --- |
/// | 0 | the blocks: block b at byte b × block size |
/// | 1 | the directory: magic, count, then the inodes that have a mapping |
/// | i + 2 | the mapping of inode i: magic, file size, count, then logical block, target, length of each extent in order |
///
/// Opening a byte store that holds all this brings the files back; space that no mapping refers to is free then. Setting
/// a mapping writes all of it anew, O(extents), in one write, and is so as atomic as that write.
///
/// Thread safety: one lock guards the directory, mappings and free space; bytes are moved outside it.
public final class ByteBackedExtentStore<Base: ByteStore>: ExtentStore {
  public let blockSize: BlockSize
  private let base: Base
  private let blockCount: UInt64
  private let state: Locked<State>

  private struct State {
    var files: [Inode: ExtentMap] = [:]
    var free = FreeRuns()
  }

  private static var blocksInode: Inode { Inode(rawValue: 0) }
  private static var directoryInode: Inode { Inode(rawValue: 1) }
  private static var directoryMagic: UInt64 { 0x5249_444E_5543_414C }  // "LACUNDIR"
  private static var mappingMagic: UInt64 { 0x5458_454E_5543_414C }  // "LACUNEXT"

  /// Opens what is in `base`, or begins anew where that is empty, with room for `blockCount` blocks.
  ///
  /// - Throws: `.malformed` where `base` holds something else, or mappings that overlap or pass `blockCount`.
  public init(_ base: Base, blockSize: BlockSize = .standard, blockCount: UInt64) throws(StoreError) {
    let (byteCount, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(blockSize.byteCount))
    guard blockCount > 0, !overflow, byteCount <= UInt64(Int64.max) else {
      throw StoreError(.outOfRange, "a store of \(blockCount) blocks of \(blockSize.byteCount) bytes cannot be")
    }
    self.base = base
    self.blockSize = blockSize
    self.blockCount = blockCount
    var state = State()
    state.free.insert(0..<blockCount)
    for inode in try Self.readDirectory(base) {
      let extents = try Self.readMapping(base, inode)
      try extents.runs.forEachRun(in: 0..<UInt64.max) { extent throws(StoreError) in
        guard let block = extent.value.physicalBlock else { return true }
        let run = PhysicalRun(block: block, count: extent.positions.length)
        guard state.free.take(run.count, at: block) == run else {
          throw StoreError(.malformed, "inode \(inode): blocks \(run.blocks) are taken twice, or past the end")
        }
        return true
      }
      state.files[inode] = extents
    }
    self.state = Locked(state)
  }

  /// How many blocks are free.
  public var freeBlockCount: UInt64 { state.withLock { $0.free.count } }

  public func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    guard count > 0 else { throw StoreError(.outOfRange, "no blocks were asked for") }
    let run = state.withLock { state in
      near.flatMap { state.free.take(count, at: $0) } ?? state.free.takeSome(count)
    }
    guard let run else { throw StoreError(.outOfSpace, "all \(blockCount) blocks of the store are in use") }
    return run
  }

  public func free(_ run: PhysicalRun) throws(StoreError) {
    let (end, overflow) = run.block.addingReportingOverflow(run.count)
    let isAllocated = state.withLock {
      run.count > 0 && !overflow && end <= blockCount && !$0.free.overlaps(run.blocks)
    }
    guard isAllocated else { throw .notAllocated(run) }
    try base.zero(Self.blocksInode, in: blockSize.offset(of: run.block)..<blockSize.offset(of: end))
    state.withLock { $0.free.insert(run.blocks) }
  }

  public func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    let count = try unsafe base.read(Self.blocksInode, into: buffer, at: try position(block, skip, buffer.count))
    // The file below ends where nothing was written yet.
    unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[count...]).initializeMemory(as: UInt8.self, repeating: 0)
  }

  public func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    try unsafe base.write(Self.blocksInode, bytes, at: try position(block, skip, bytes.count))
  }

  /// The byte in the file of blocks; refuses what is outside the store.
  private func position(_ block: UInt64, _ skip: Int, _ byteCount: Int) throws(StoreError) -> UInt64 {
    guard block < blockCount, skip >= 0,
      let range = Range(offset: blockSize.offset(of: block) + UInt64(skip), byteCount: byteCount),
      range.upperBound <= blockSize.offset(of: blockCount)
    else {
      throw StoreError(.outOfRange, "\(byteCount) bytes at block \(block) pass the end of the store")
    }
    return range.lowerBound
  }

  public func extents(of inode: Inode) throws(StoreError) -> ExtentMap {
    state.withLock { $0.files[inode] } ?? ExtentMap()
  }

  public func setExtents(_ extents: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      // The mapping first: a directory never names an inode that has none.
      try writeMapping(extents, of: inode)
      if state.files.updateValue(extents, forKey: inode) == nil { try writeDirectory(state.files.keys) }
    }
  }

  public func removeExtents(of inode: Inode) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      guard state.files.removeValue(forKey: inode) != nil else { return }
      try writeDirectory(state.files.keys)
      try base.remove(try Self.mappingInode(inode))
    }
  }

  /// Does nothing: a byte store has no such operation, and what it keeps is as durable as it makes it.
  public func sync() throws(StoreError) {}
}

extension ByteBackedExtentStore {
  private static func mappingInode(_ inode: Inode) throws(StoreError) -> Inode {
    let (number, overflow) = inode.rawValue.addingReportingOverflow(2)
    guard !overflow else { throw StoreError(.wrongInode, "inode \(inode) is too large") }
    return Inode(rawValue: number)
  }

  private func writeMapping(_ extents: ExtentMap, of inode: Inode) throws(StoreError) {
    var words = [Self.mappingMagic, extents.byteCount, 0]
    extents.runs.forEachRun(in: 0..<UInt64.max) { extent in
      words += [extent.positions.lowerBound, extent.value.rawValue, extent.positions.length]
      return true
    }
    words[2] = UInt64(words.count - 3) / 3
    try base.writeWords(words, to: try Self.mappingInode(inode))
  }

  private func writeDirectory(_ inodes: some Collection<Inode>) throws(StoreError) {
    try base.writeWords(
      [Self.directoryMagic, UInt64(inodes.count)] + inodes.map(\.rawValue).sorted(), to: Self.directoryInode)
  }

  private static func readDirectory(_ base: Base) throws(StoreError) -> [Inode] {
    let words = try base.readWords(of: directoryInode)
    if words.isEmpty, try base.byteCount(of: blocksInode) == 0 { return [] }
    guard words.count >= 2, words[0] == directoryMagic, words[1] == UInt64(words.count - 2) else {
      throw StoreError(.malformed, "the byte store holds no directory of an extent store")
    }
    return words[2...].map(Inode.init)
  }

  private static func readMapping(_ base: Base, _ inode: Inode) throws(StoreError) -> ExtentMap {
    let malformed = StoreError(.malformed, "inode \(inode): its mapping is not one that an extent store wrote")
    let words = try base.readWords(of: try mappingInode(inode))
    guard words.count >= 3, words.count % 3 == 0, words[0] == mappingMagic, words[1] <= UInt64(Int64.max),
      words[2] == UInt64(words.count / 3 - 1)
    else { throw malformed }
    var extents = ExtentMap()
    extents.byteCount = words[1]
    var end: UInt64 = 0
    for index in stride(from: 3, to: words.count, by: 3) {
      let (start, target, length) = (words[index], words[index + 1], words[index + 2])
      let limit = UInt64(Int64.max)
      guard start >= end, length > 0, start <= limit, length <= limit, start + length <= limit,
        target == .max || target <= limit - length
      else { throw malformed }
      end = start + length
      extents.replace(start..<end, with: BlockTarget(rawValue: target))
    }
    return extents
  }
}

extension ByteStore {
  /// Makes the file `inode` consist of `words`, little-endian.
  fileprivate func writeWords(_ words: [UInt64], to inode: Inode) throws(StoreError) {
    let words = words.map(\.littleEndian)
    let byteCount = UInt64(words.count) * 8
    // Safe: the words outlive the call.
    let result = unsafe words.withUnsafeBytes { bytes in
      Result { () throws(StoreError) in try unsafe write(inode, bytes, at: 0) }
    }
    try result.get()
    if try self.byteCount(of: inode) > byteCount { try truncate(inode, to: byteCount) }
  }

  /// The whole words of the file `inode`, little-endian.
  fileprivate func readWords(of inode: Inode) throws(StoreError) -> [UInt64] {
    let count = try Int(byteCount(of: inode) / 8)
    var words = [UInt64](repeating: 0, count: count)
    let result = unsafe words.withUnsafeMutableBytes { bytes in
      Result { () throws(StoreError) in _ = try unsafe read(inode, into: bytes, at: 0) }
    }
    try result.get()
    return words.map { UInt64(littleEndian: $0) }
  }
}
