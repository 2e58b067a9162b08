package import BlockStores
import Bytes

/// What a `BlockFile` must hold and say of itself: its bytes in a flat array, and for each block what kind it is.
package struct ReferenceFile: Sendable {
  package private(set) var disk = ReferenceDisk()
  private var kinds: [RangeContent] = []
  private let blockByteCount: Int
  /// Whether the file's mapping can hold reserved zeroes.
  private let reservesZeroes: Bool

  /// An empty file.
  package init(blockByteCount: Int, reservesZeroes: Bool) {
    (self.blockByteCount, self.reservesZeroes) = (blockByteCount, reservesZeroes)
  }

  package var byteCount: Int { disk.byteCount }

  package mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    disk.write(bytes, at: offset)
    resizeKinds()
    for block in blocks(touching: offset..<offset + bytes.count) { kinds[block] = .data }
  }

  package mutating func zero(_ range: Range<Int>, keepsSpace: Bool) {
    let range = range.clamped(to: 0..<byteCount)
    disk.zero(range)
    for block in blocks(touching: range) { kinds[block] = zeroed(block, range, keepsSpace) }
  }

  private func zeroed(_ block: Int, _ range: Range<Int>, _ keepsSpace: Bool) -> RangeContent {
    if keepsSpace, !reservesZeroes { return .data }
    if isWhole(block, in: range) { return keepsSpace ? .unwritten : .hole }
    // A part of a hole keeps its space once it has some.
    return kinds[block] == .hole && keepsSpace ? .data : kinds[block]
  }

  package mutating func discard(_ range: Range<Int>) {
    let range = range.clamped(to: 0..<byteCount)
    for block in blocks(touching: range) where isWhole(block, in: range) {
      disk.zero(block * blockByteCount..<(block + 1) * blockByteCount)
      kinds[block] = .hole
    }
  }

  package mutating func truncate(to byteCount: Int) {
    disk.resize(to: byteCount)
    resizeKinds()
  }

  /// The extents that lie in `range`: maximal, and clipped to it.
  package func extents(in range: Range<Int>) -> [FileExtent] {
    let range = range.clamped(to: 0..<byteCount)
    var extents: [FileExtent] = []
    for block in blocks(touching: range) {
      let start = max(range.lowerBound, block * blockByteCount)
      let end = min(range.upperBound, (block + 1) * blockByteCount)
      if let last = extents.last, last.kind == kinds[block] {
        extents[extents.count - 1].bytes = last.bytes.lowerBound..<UInt64(end)
      } else {
        extents.append(FileExtent(UInt64(start)..<UInt64(end), kinds[block]))
      }
    }
    return extents
  }

  /// How many blocks hold data.
  package var dataBlockCount: Int { kinds.count { $0 == .data } }

  /// Compares the file's bytes and extents, all of them.
  package func check(_ file: BlockFile<some FileBacking>) throws {
    try LacunaTestSupport.check(
      file.byteCount == UInt64(byteCount), "the file has \(file.byteCount) bytes and should have \(byteCount)")
    let found = try file.bytes(at: 0, count: byteCount + 1)
    try LacunaTestSupport.check(found.count == byteCount, "\(found.count) bytes were read and not \(byteCount)")
    try found.withUnsafeBytes { try disk.check($0, at: 0) }
    try checkExtents(file, in: 0..<byteCount + blockByteCount)
  }

  /// Compares what the file says of a range; where that reads as zeroes by its word, it must.
  package func checkExtents(_ file: BlockFile<some FileBacking>, in range: Range<Int>) throws {
    let (found, expected) = (
      file.extents(in: UInt64(range.lowerBound)..<UInt64(range.upperBound)), extents(in: range)
    )
    try LacunaTestSupport.check(found == expected, "in \(range) extents are \(found) and should be \(expected)")
    for extent in found where extent.kind != .data {
      let bytes = Int(extent.bytes.lowerBound)..<Int(extent.bytes.upperBound)
      try LacunaTestSupport.check(disk.isZero(bytes), "\(extent) is not all zeroes")
    }
  }

  /// Becomes what the file is after a zeroing of `range` that failed half-way: each byte of the range is as it was or zero.
  package mutating func adopt(_ file: BlockFile<some FileBacking>, afterZeroing range: Range<Int>) throws {
    let before = disk.bytes
    let found = try file.bytes(at: 0, count: byteCount + 1)
    try LacunaTestSupport.check(found.count == byteCount, "the file has \(found.count) bytes, not \(byteCount)")
    for index in found.indices where found[index] != before[index] {
      try LacunaTestSupport.check(
        found[index] == 0 && range.contains(index), "a failed zeroing of \(range) changed byte \(index)")
      disk.zero(index..<index + 1)
    }
    for extent in file.extents() {
      for block in blocks(touching: Int(extent.bytes.lowerBound)..<Int(extent.bytes.upperBound)) {
        kinds[block] = extent.kind
      }
    }
    try checkExtents(file, in: 0..<byteCount)
  }

  private mutating func resizeKinds() {
    let count = (byteCount + blockByteCount - 1) / blockByteCount
    if count < kinds.count {
      kinds.removeSubrange(count...)
    } else {
      kinds.append(contentsOf: repeatElement(.hole, count: count - kinds.count))
    }
  }

  private func blocks(touching range: Range<Int>) -> Range<Int> {
    let first = range.lowerBound / blockByteCount
    return first..<(range.isEmpty ? first : (range.upperBound + blockByteCount - 1) / blockByteCount)
  }

  /// Whether `range` covers all of a block that the file has.
  private func isWhole(_ block: Int, in range: Range<Int>) -> Bool {
    range.lowerBound <= block * blockByteCount && range.upperBound >= min((block + 1) * blockByteCount, byteCount)
  }
}
