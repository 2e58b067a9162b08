public import Bytes
public import Extents

/// An extent store over any byte store: the way for what has files of bytes to offer extents.
///
/// What it keeps in the byte store below, all numbers 64 bits wide and little-endian:
///
/// | inode below | contents |
/// | --- | --- |
/// | 0 | the blocks: block b at byte b × block size |
/// | 1 | the directory: magic, checksum, count, then the inodes that have a mapping, in order |
/// | i + 2 | the mapping of inode i: magic, checksum, file size, count, then logical block, target, length of each extent in order |
///
/// A checksum covers the words behind it and the inode below. What follows the last word that a count speaks of is nothing.
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
  private let openInodes = OpenInodes()

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
      throw StoreError(.outOfRange, "a store cannot have \(blockCount) blocks of \(blockSize.byteCount) bytes")
    }
    self.base = base
    self.blockSize = blockSize
    self.blockCount = blockCount
    var state = State()
    state.free.insert(0..<blockCount)
    let inodes = try Self.readDirectory(base)
    for inode in inodes ?? [] {
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
    // Without a rank: the byte store below may be any, also one made of files over a store like this, and is called under the lock.
    self.state = Locked(state)
    if inodes == nil { try writeDirectory([]) }
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
    // Where the base cannot take the bytes back, it keeps them until the blocks are written again.
    try? base.zero(Self.blocksInode, in: blockSize.offset(of: run.block)..<blockSize.offset(of: end))
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

  public func open(_ inode: Inode) throws(StoreError) -> OpenInode { try openInodes.open(inode) }

  public func extents(of inode: Inode) throws(StoreError) -> ExtentMap {
    state.withLock { $0.files[inode] } ?? ExtentMap()
  }

  public func setExtents(_ extents: ExtentMap, of inode: Inode, changed: Range<UInt64>) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      // The mapping first: a directory never names an inode that has none.
      try writeMapping(extents, of: inode)
      if state.files[inode] == nil { try writeDirectory(state.files.keys + [inode]) }
      state.files[inode] = extents
    }
  }

  public func removeExtents(of inode: Inode) throws(StoreError) {
    try state.withLock { state throws(StoreError) in
      guard state.files[inode] != nil else { return }
      try writeDirectory(state.files.keys.filter { $0 != inode })
      state.files[inode] = nil
      // A mapping that the directory does not name means nothing, should it stay.
      try? base.remove(Self.mappingInode(inode))
    }
  }

  public func isShared(_ run: PhysicalRun) -> Bool { false }

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
    var words = [extents.byteCount, 0]
    extents.runs.forEachRun(in: 0..<UInt64.max) { extent in
      words += [extent.positions.lowerBound, extent.value.physicalBlock ?? .max, extent.positions.length]
      return true
    }
    words[1] = UInt64(words.count - 2) / 3
    try base.writeRecord(Self.mappingMagic, words, to: try Self.mappingInode(inode))
  }

  private func writeDirectory(_ inodes: some Collection<Inode>) throws(StoreError) {
    try base.writeRecord(
      Self.directoryMagic, [UInt64(inodes.count)] + inodes.map(\.rawValue).sorted(), to: Self.directoryInode)
  }

  /// The inodes that have a mapping; nil where the store has not begun yet.
  private static func readDirectory(_ base: Base) throws(StoreError) -> [Inode]? {
    if try base.byteCount(of: directoryInode) == 0, try base.byteCount(of: blocksInode) == 0 { return nil }
    var record = try RecordReader(base, directoryInode, directoryMagic)
    var inodes: [Inode] = []
    for _ in 0..<(try record.nextWord()) {
      let inode = Inode(rawValue: try record.nextWord())
      let isInOrder = inodes.last.map { $0.rawValue < inode.rawValue } ?? true
      guard isInOrder, (try? mappingInode(inode)) != nil else { throw record.malformed }
      inodes.append(inode)
    }
    try record.finish()
    return inodes
  }

  private static func readMapping(_ base: Base, _ inode: Inode) throws(StoreError) -> ExtentMap {
    var record = try RecordReader(base, try mappingInode(inode), mappingMagic)
    let limit = UInt64(Int64.max)
    var extents = ExtentMap()
    extents.byteCount = try record.nextWord()
    guard extents.byteCount <= limit else { throw record.malformed }
    var end: UInt64 = 0
    for _ in 0..<(try record.nextWord()) {
      let (start, target, length) = (try record.nextWord(), try record.nextWord(), try record.nextWord())
      guard start >= end, length > 0, start <= limit, length <= limit - start,
        target == .max || target <= limit - length
      else { throw record.malformed }
      end = start + length
      extents.replace(start..<end, with: target == .max ? .unwritten : .physical(target))
    }
    try record.finish()
    return extents
  }
}

// A record: magic, checksum, words. Whoever reads it knows from the words where it ends.

extension ByteStore {
  /// Makes the file `inode` begin with a record, in one write.
  fileprivate func writeRecord(_ magic: UInt64, _ words: [UInt64], to inode: Inode) throws(StoreError) {
    var checksum = RecordChecksum(of: inode)
    for word in words { checksum.add(word) }
    let all = ([magic, checksum.value] + words).map(\.littleEndian)
    // Safe: the words outlive the call.
    let result = unsafe all.withUnsafeBytes { bytes in
      Result { () throws(StoreError) in try unsafe write(inode, bytes, at: 0) }
    }
    try result.get()
    // What is left of a longer record means nothing, should it stay.
    try? truncate(inode, to: UInt64(all.count) * 8)
  }
}

/// Reads a record word by word. A word that is not there is an error, so that a count of any size is harmless.
private struct RecordReader<Base: ByteStore> {
  private let base: Base
  private let inode: Inode
  private var offset: UInt64 = 0
  /// Words read from the base and not yet passed on, the next one last.
  private var pending: [UInt64] = []
  private let expected: UInt64
  private var checksum: RecordChecksum

  private static var pieceWordCount: Int { 512 }

  /// Opens the record in the file `inode`.
  init(_ base: Base, _ inode: Inode, _ magic: UInt64) throws(StoreError) {
    (self.base, self.inode) = (base, inode)
    checksum = RecordChecksum(of: inode)
    pending = try Self.readWords(base, inode, at: 0).reversed()
    guard pending.count >= 2, pending.removeLast() == magic else { throw .malformedRecord(inode) }
    expected = pending.removeLast()
    offset = UInt64(pending.count + 2) * 8
  }

  var malformed: StoreError { .malformedRecord(inode) }

  mutating func nextWord() throws(StoreError) -> UInt64 {
    if pending.isEmpty {
      pending = try Self.readWords(base, inode, at: offset).reversed()
      offset += UInt64(pending.count) * 8
    }
    guard let word = pending.popLast() else { throw malformed }
    checksum.add(word)
    return word
  }

  /// Ends the record behind the last word that was read.
  func finish() throws(StoreError) {
    guard checksum.value == expected else { throw malformed }
  }

  /// Some words from `offset` on; none where the file ends.
  private static func readWords(_ base: Base, _ inode: Inode, at offset: UInt64) throws(StoreError) -> [UInt64] {
    var words = [UInt64](repeating: 0, count: pieceWordCount)
    // Safe: the buffer lives for the time of the call.
    let result = unsafe words.withUnsafeMutableBytes { bytes in
      Result { () throws(StoreError) in try unsafe base.read(inode, into: bytes, at: offset) }
    }
    return try words.prefix(result.get() / 8).map { UInt64(littleEndian: $0) }
  }
}

/// A checksum over words: each step is a bijection, so that one changed word never goes unnoticed.
private struct RecordChecksum {
  private(set) var value: UInt64

  init(of inode: Inode) {
    value = 0
    add(inode.rawValue)
  }

  mutating func add(_ word: UInt64) {
    let mixed = (value ^ word) &* 0x9E37_79B9_7F4A_7C15  // Odd, hence invertible.
    value = mixed ^ mixed >> 29
  }
}

extension StoreError {
  fileprivate static func malformedRecord(_ inode: Inode) -> StoreError {
    StoreError(.malformed, "inode \(inode) of the byte store does not hold what an extent store wrote there")
  }
}
