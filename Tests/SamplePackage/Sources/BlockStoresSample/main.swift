// Files in memory that share blocks, and a store of one's own. Of Lacuna it needs the module BlockStores alone.
import BlockStores

/// A byte store of one's own, over which `ByteBackedExtentStore` makes an extent store. A class rather than an actor, since the
/// calls are synchronous; this program has one thread.
final class ArrayStore: ByteStore, @unchecked Sendable {
  private var files: [Inode: [UInt8]] = [:]
  /// The longest file, in bytes.
  private let limit: UInt64

  init(limit: UInt64) { self.limit = limit }

  func read(_ inode: Inode, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(StoreError) -> Int {
    let file = files[inode] ?? []
    guard offset < UInt64(file.count) else { return 0 }
    let bytes = file[Int(offset)...].prefix(buffer.count)
    buffer.copyBytes(from: bytes)
    return bytes.count
  }

  func write(_ inode: Inode, _ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    let end = offset + UInt64(bytes.count)
    if end > byteCount(of: inode) { try truncate(inode, to: end) }
    files[inode]?.replaceSubrange(Int(offset)..<Int(end), with: bytes)
  }

  func zero(_ inode: Inode, in range: Range<UInt64>) throws(StoreError) {
    let range = range.clamped(to: 0..<byteCount(of: inode))
    for index in range { files[inode]?[Int(index)] = 0 }
  }

  func truncate(_ inode: Inode, to byteCount: UInt64) throws(StoreError) {
    guard byteCount <= limit else { throw StoreError(.outOfSpace, "a file has at most \(limit) bytes") }
    var file = files[inode] ?? []
    if byteCount < UInt64(file.count) {
      file.removeLast(file.count - Int(byteCount))
    } else {
      file.append(contentsOf: repeatElement(0, count: Int(byteCount) - file.count))
    }
    files[inode] = file
  }

  func remove(_ inode: Inode) throws(StoreError) { files[inode] = nil }

  func byteCount(of inode: Inode) -> UInt64 { UInt64(files[inode]?.count ?? 0) }
}

extension BlockFile {
  func write(_ text: String, at offset: UInt64) throws {
    try Array(text.utf8).withUnsafeBytes { try write($0, at: offset) }
  }

  func text(at offset: UInt64, count: Int) throws -> String {
    var bytes = [UInt8](repeating: 0, count: count)
    let readCount = try bytes.withUnsafeMutableBytes { try read(into: $0, at: offset) }
    return String(decoding: bytes[..<readCount], as: UTF8.self)
  }
}

guard let blockSize = BlockSize(byteCount: 4096) else { fatalError("4096 is a power of two") }

// 1. Two files that share blocks.
let store = try MemoryExtentStore(blockSize: blockSize, blockCount: 1 << 20)
let file = try ExtentFile(store, inode: Inode(rawValue: 1))
try file.write("before", at: 1 << 30)
let clone = try file.clone(to: Inode(rawValue: 2))
try file.write("after ", at: 1 << 30)
print("file: \(try file.text(at: 1 << 30, count: 6)), clone: \(try clone.text(at: 1 << 30, count: 6))")
file.forEachExtent(in: 0..<file.byteCount) { bytes, kind in
  print("\(bytes): \(kind)")
  return true
}

// 2. Where the blocks of a file are.
let map: ExtentMap = try store.extents(of: Inode(rawValue: 2))
map.forEachPiece(in: 0..<blockSize.blocks(toHold: clone.byteCount)) { blocks, target in
  if let target, let block = target.physicalBlock {
    print("blocks \(blocks) are at \(block), shared: \(store.isShared(PhysicalRun(block: block, count: 1)))")
  }
  return true
}

// 3. An extent store over a byte store of one's own.
let own = try ByteBackedExtentStore(ArrayStore(limit: 1 << 20), blockSize: blockSize, blockCount: 1 << 10)
let other = try ExtentFile(own, inode: Inode(rawValue: 1))
try other.write("kept in an array", at: 10_000)
print("own: \(try other.text(at: 10_000, count: 16))")
do {
  for block in 0..<1024 { try other.write("x", at: UInt64(block) * 4096) }
} catch let error as StoreError where error.code == .outOfSpace {
  print("own: \(error)")
}
