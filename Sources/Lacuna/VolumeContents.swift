internal import BlockStores

/// The bytes of a volume, in whichever store they are: the seam between volumes and stores.
///
/// A closed set rather than a protocol's existential, so that each request costs one switch and is then direct.
enum VolumeContents: Sendable {
  case extents(ExtentFile<MemoryExtentStore>)
  case chain(BlockChainFile<MemoryBlockChainStore>)
  case bytes(MemoryByteStore, Inode)

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(StoreError) -> Int {
    switch self {
    case .extents(let file): try unsafe file.read(into: buffer, at: offset)
    case .chain(let file): try unsafe file.read(into: buffer, at: offset)
    case .bytes(let store, let inode): try unsafe store.read(inode, into: buffer, at: offset)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    switch self {
    case .extents(let file): try unsafe file.write(bytes, at: offset)
    case .chain(let file): try unsafe file.write(bytes, at: offset)
    case .bytes(let store, let inode): try unsafe store.write(inode, bytes, at: offset)
    }
  }

  func zero(in range: Range<UInt64>, keepsSpace: Bool) throws(StoreError) {
    switch self {
    case .extents(let file): try file.zero(in: range, keepsSpace: keepsSpace)
    case .chain(let file): try file.zero(in: range, keepsSpace: keepsSpace)
    case .bytes(let store, let inode): try store.zero(inode, in: range)
    }
  }

  func discard(in range: Range<UInt64>) throws(StoreError) {
    switch self {
    case .extents(let file): try file.discard(in: range)
    case .chain(let file): try file.discard(in: range)
    case .bytes(let store, let inode): try store.zero(inode, in: range)
    }
  }

  func truncate(to byteCount: UInt64) throws(StoreError) {
    switch self {
    case .extents(let file): try file.truncate(to: byteCount)
    case .chain(let file): try file.truncate(to: byteCount)
    case .bytes(let store, let inode): try store.truncate(inode, to: byteCount)
    }
  }

  func sync() throws(StoreError) {
    switch self {
    case .extents(let file): try file.sync()
    case .chain(let file): try file.sync()
    case .bytes: break  // In memory; there is nothing more durable.
    }
  }

  /// Calls `visit` with maximal ranges of one kind that cover `range`, in order, until it returns false.
  func forEachExtent<Failure: Error>(
    in range: Range<UInt64>, _ visit: (Range<UInt64>, FileExtentKind) throws(Failure) -> Bool
  ) throws(Failure) {
    switch self {
    case .extents(let file): try file.forEachExtent(in: range, visit)
    case .chain(let file): try file.forEachExtent(in: range, visit)
    case .bytes: _ = try visit(range, .data)  // The interface tells nothing of holes.
    }
  }

  /// The unit of reading and writing that costs least, in bytes.
  var preferredByteCount: Int {
    switch self {
    case .extents(let file): file.blockSize.byteCount
    case .chain(let file): file.blockSize.byteCount
    case .bytes: 4096  // A page.
    }
  }

  /// Whether zeroing costs no more than O(log n), whatever the length, if space need not be kept.
  var zeroesByMapping: Bool {
    switch self {
    case .extents, .chain: true
    case .bytes: false
    }
  }

  /// Whether that holds also if space is to be kept.
  var reservesZeroes: Bool {
    switch self {
    case .extents: true
    case .chain, .bytes: false
    }
  }
}
