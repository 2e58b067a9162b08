import BlockStores

/// Random operations on a few files of one store, each beside its ``ReferenceFile``.
///
/// Sizes and offsets have any alignment. The store is small enough that it runs full now and then: an operation that fails for
/// lack of space must have changed nothing.
package struct FileWorkload<Store: FileStore> {
  private struct File {
    let inode: Inode
    var file: BlockFile<Store.Backing>
    var model: ReferenceFile
  }

  private var store: Store
  private var files: [File] = []
  private var generator: SeededGenerator
  private var nextInode: UInt64 = 1
  private let byteCountMax: Int
  private let overwritesInPlace: Bool
  /// Bytes to take writes from, and room to read into.
  private let source: [UInt8]
  private var buffer: [UInt8]

  private static var fileCountMax: Int { 3 }

  /// Begins with one empty file. No file becomes larger than `byteCountMax` bytes.
  package init(
    _ store: Store, byteCountMax: Int, overwritesInPlace: Bool = false, _ generator: SeededGenerator
  ) throws {
    (self.store, self.byteCountMax, self.overwritesInPlace) = (store, byteCountMax, overwritesInPlace)
    self.generator = generator
    source = self.generator.nonZeroBytes(2 * byteCountMax)
    buffer = Array(repeating: 0, count: byteCountMax)
    try addFile()
  }

  private var inodes: [Inode] { files.map(\.inode) }

  /// Does `count` operations; compares everything every `checkInterval` of them.
  package mutating func run(_ count: Int, checkInterval: Int) throws {
    for step in 1...count {
      do { try self.step() } catch { throw CheckFailure("operation \(step): \(error)") }
      if step % checkInterval == 0 { try check() }
    }
    try check()
  }

  /// Removes all files and checks that no block is lost.
  package mutating func finish() throws {
    for file in files { try file.file.remove() }
    try store.checkSpace(of: inodes)
    files = []
    try LacunaTestSupport.check(store.freeBlockCount() == store.capacity, "not all blocks are free at the end")
    try LacunaTestSupport.check(store.reopened().freeBlockCount() == store.capacity, "nor when opened again")
  }

  private func check() throws {
    for file in files { try file.model.check(file.file) }
    try store.checkSpace(of: inodes)
  }

  private mutating func step() throws {
    let index = generator.number(below: files.count)
    let range = randomRange(in: files[index].model)
    switch generator.number(below: 100) {
    case 0..<40: try write(index, range)
    case 40..<65: try read(index, range)
    case 65..<72: try zero(index, range, keepsSpace: false)
    case 72..<79: try zero(index, range, keepsSpace: true)
    case 79..<85: try discard(index, range)
    case 85..<91: try truncate(index, to: generator.oneIn(2) ? range.lowerBound : range.upperBound)
    case 91..<96: try files[index].model.checkExtents(files[index].file, in: range)
    case 96: try reopen()
    case 97: try clone(index)
    case 98: if files.count > 1 { try remove(index) }
    default: if files.count < Self.fileCountMax { try addFile() }
    }
  }

  /// A range that is mostly short, often begins or ends at a block's border or at the file's end, and may pass that.
  private mutating func randomRange(in model: ReferenceFile) -> Range<Int> {
    let block = store.backing.blockSize.byteCount
    let longest = generator.oneIn(12) ? byteCountMax : 4 * block
    let range = generator.range(below: UInt64(byteCountMax), longest: UInt64(longest))
    var (lower, upper) = (Int(range.lowerBound), Int(range.upperBound))
    if generator.oneIn(3) { lower = lower / block * block }
    if generator.oneIn(3) { upper = (upper + block - 1) / block * block }
    if generator.oneIn(6), model.byteCount > lower { upper = model.byteCount }
    return lower..<min(upper, byteCountMax)
  }

  private mutating func write(_ index: Int, _ range: Range<Int>) throws {
    let start = generator.number(below: source.count - range.count + 1)
    try source.withUnsafeBytes { source in
      let bytes = UnsafeRawBufferPointer(rebasing: source[start..<start + range.count])
      do {
        try files[index].file.write(bytes, at: UInt64(range.lowerBound))
      } catch let error as StoreError where error.code == .outOfSpace {
        return
      }
      files[index].model.write(bytes, at: range.lowerBound)
    }
  }

  private mutating func read(_ index: Int, _ range: Range<Int>) throws {
    let model = files[index].model
    let expectedCount = max(0, min(range.upperBound, model.byteCount) - range.lowerBound)
    try buffer.withUnsafeMutableBytes { buffer in
      let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<range.count])
      let count = try files[index].file.read(into: part, at: UInt64(range.lowerBound))
      try LacunaTestSupport.check(count == expectedCount, "a read of \(range) gave \(count) bytes")
      try model.disk.check(UnsafeRawBufferPointer(rebasing: part[..<count]), at: range.lowerBound)
    }
  }

  private mutating func zero(_ index: Int, _ range: Range<Int>, keepsSpace: Bool) throws {
    do {
      try files[index].file.zero(in: UInt64(range.lowerBound)..<UInt64(range.upperBound), keepsSpace: keepsSpace)
    } catch  where error.code == .outOfSpace {
      return try files[index].model.adopt(files[index].file, afterZeroing: range)
    }
    files[index].model.zero(range, keepsSpace: keepsSpace)
  }

  private mutating func discard(_ index: Int, _ range: Range<Int>) throws {
    try files[index].file.discard(in: UInt64(range.lowerBound)..<UInt64(range.upperBound))
    files[index].model.discard(range)
  }

  private mutating func truncate(_ index: Int, to byteCount: Int) throws {
    do {
      try files[index].file.truncate(to: UInt64(byteCount))
    } catch  where error.code == .outOfSpace {
      return
    }
    files[index].model.truncate(to: byteCount)
  }

  private mutating func addFile() throws {
    let inode = Inode(rawValue: nextInode)
    nextInode += 1
    let model = ReferenceFile(
      blockByteCount: store.backing.blockSize.byteCount, reservesZeroes: Store.Backing.Map.holdsUnwritten)
    files.append(
      File(
        inode: inode, file: try BlockFile(store.backing, inode: inode, overwritesInPlace: overwritesInPlace),
        model: model))
  }

  private mutating func clone(_ index: Int) throws {
    guard files.count < Self.fileCountMax else { return }
    let inode = Inode(rawValue: nextInode)
    guard let file = try store.clone(files[index].file, to: inode) else { return }
    nextInode += 1
    files.append(File(inode: inode, file: file, model: files[index].model))
  }

  private mutating func remove(_ index: Int) throws {
    let file = files.remove(at: index)
    try file.file.remove()
    try LacunaTestSupport.check(file.file.byteCount == 0, "a removed file has bytes")
  }

  private mutating func reopen() throws {
    store = try store.reopened()
    // The old files go first: one at a time is open on an inode.
    let all = files.map { (inode: $0.inode, model: $0.model) }
    files = []
    for (inode, model) in all {
      let file = try BlockFile(store.backing, inode: inode, overwritesInPlace: overwritesInPlace)
      files.append(File(inode: inode, file: file, model: model))
    }
  }
}
