/// Bytes by inode: the simplest way to hold files, each one array of bytes.
///
/// An inode is there as soon as something was written to it or its size was set. Positions and sizes are in bytes, at
/// most 2^63 - 1. All operations may be called from any thread; each is atomic with respect to the others on the same
/// inode.
///
/// There are no holes in this interface. A store may keep zeroes without taking space for them, but nobody can ask.
/// (Design document, option A.)
public protocol ByteStore: Sendable {
  /// Reads into `buffer` from `offset` on and returns how many bytes there were: fewer than `buffer` holds only where
  /// the file ends, 0 at its end and behind. The rest of `buffer` keeps what it held. An unknown inode is an empty file.
  func read(_ inode: Inode, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(StoreError) -> Int

  /// Writes all of `bytes` at `offset`. The file grows where needed; a gap behind its old end reads as zeroes.
  ///
  /// - Throws: `.outOfRange` where the end lies above 2^63 - 1, `.outOfSpace` where there is no room; then the file is as
  ///   it was.
  func write(_ inode: Inode, _ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError)

  /// Makes `range` read as zeroes, as writing zeroes would, without the cost of passing them; the file does not grow:
  /// what lies behind its end is left out.
  func zero(_ inode: Inode, in range: Range<UInt64>) throws(StoreError)

  /// Sets the file's size. Bytes behind a lower one are gone; those up to a higher one are zeroes.
  func truncate(_ inode: Inode, to byteCount: UInt64) throws(StoreError)

  /// Takes the file away, with all it held. An unknown inode is no error.
  func remove(_ inode: Inode) throws(StoreError)

  /// The file's size in bytes; 0 for an unknown inode.
  func byteCount(of inode: Inode) throws(StoreError) -> UInt64
}
