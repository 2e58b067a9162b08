/// A reference to a metadata block, with all that is needed to verify it.
///
/// ```
///  0  u64  block        0 refers to nothing
///  8  u64  generation   of the checkpoint that wrote the block
/// 16  u32  checksum     see MetadataChecksum
/// 20  u32  zero
/// ```
package struct BlockPointer: Sendable, Hashable {
  /// The block; 0 refers to nothing.
  package var block: UInt64
  /// The generation of the checkpoint that wrote the block.
  package var generation: UInt64
  /// The block's ``MetadataChecksum``.
  package var checksum: UInt32

  /// The size of an encoded pointer, in bytes.
  package static let encodedByteCount = 24

  /// Refers to nothing.
  package static let null = BlockPointer(block: 0, generation: 0, checksum: 0)

  /// Makes a pointer.
  package init(block: UInt64, generation: UInt64, checksum: UInt32) {
    self.block = block
    self.generation = generation
    self.checksum = checksum
  }

  /// Whether it refers to nothing.
  package var isNull: Bool { block == 0 }

  /// Decodes the pointer at `offset`; all bytes are a pointer.
  package init(decoding bytes: RawSpan, at offset: Int) {
    block = bytes.uint64(at: offset)
    generation = bytes.uint64(at: offset + 8)
    checksum = bytes.uint32(at: offset + 16)
  }

  /// Encodes the pointer at `offset`.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    bytes.store(block, at: offset)
    bytes.store(generation, at: offset + 8)
    bytes.store(checksum, at: offset + 16)
    bytes.store(UInt32(0), at: offset + 20)
  }
}

/// The root of a tree.
///
/// ```
///  0  24  BlockPointer of the root node
/// 24  u8  height: the number of levels; 0 for an empty tree, whose pointer is null
/// 25   7  zero
/// ```
package struct TreeRoot: Sendable, Hashable {
  /// The root node.
  package var pointer: BlockPointer
  /// How many levels the tree has; 0 where it is empty.
  package var height: Int

  /// The size of an encoded root, in bytes.
  package static let encodedByteCount = 32
  /// The greatest height that is believed. The narrowest nodes, a third full, hold 2^64 keys in 19 levels.
  package static let maximumHeight = 24

  /// The root of a tree without entries.
  package static let empty = TreeRoot(pointer: .null, height: 0)

  /// Makes a root. `height` is 0 for the null pointer alone, and at most `maximumHeight`.
  package init(pointer: BlockPointer, height: Int) {
    self.pointer = pointer
    self.height = height
  }

  /// Whether the tree has no entries.
  package var isEmpty: Bool { height == 0 }

  /// Decodes the root at `offset`.
  ///
  /// - Throws: `ExtentFSError` with `damaged` for a height that cannot be.
  package init(decoding bytes: RawSpan, at offset: Int) throws(ExtentFSError) {
    pointer = BlockPointer(decoding: bytes, at: offset)
    height = Int(bytes.uint8(at: offset + 24))
    guard height <= Self.maximumHeight, (height == 0) == pointer.isNull, pointer.block < ExtentRecord.blockLimit else {
      throw ExtentFSError(.damaged, "a tree's root is at block \(pointer.block), with a height of \(height)")
    }
  }

  /// Encodes the root at `offset`.
  package func encode(into bytes: inout MutableRawSpan, at offset: Int) {
    pointer.encode(into: &bytes, at: offset)
    bytes.store(UInt64(truncatingIfNeeded: height & 0xFF), at: offset + 24)
  }
}
