internal import BlockStores
internal import Devices
internal import ExtentFS

/// The bytes of a volume, in whichever store they are: the seam between volumes and stores.
///
/// A closed set rather than a protocol's existential, so that each request costs one switch and is then direct.
enum VolumeContents: Sendable {
  case extents(ExtentFile<MemoryExtentStore>)
  case chain(BlockChainFile<MemoryBlockChainStore>)
  case bytes(MemoryByteStore, Inode)
  case disk(DiskVolume)
  case difference(VolumeDifference)

  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(LacunaError) {
    let count =
      switch self {
      case .extents(let file): try inMemory { () throws(StoreError) in try unsafe file.read(into: buffer, at: offset) }
      case .chain(let file): try inMemory { () throws(StoreError) in try unsafe file.read(into: buffer, at: offset) }
      case .bytes(let bytes, let inode):
        try inMemory { () throws(StoreError) in try unsafe bytes.read(inode, into: buffer, at: offset) }
      case .disk(let volume):
        try onDisk { () throws(ExtentFSError) -> Int in
          try unsafe volume.read(into: buffer, at: offset)
          return buffer.count
        }
      case .difference(let difference):
        try onDisk { () throws(ExtentFSError) -> Int in
          try unsafe difference.new.read(into: buffer, at: offset)
          return buffer.count
        }
      }
    guard count == buffer.count else { throw LacunaError(.internalFailure, "its contents end before it does") }
  }

  func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(LacunaError) {
    switch self {
    case .extents(let file): try inMemory { () throws(StoreError) in try unsafe file.write(bytes, at: offset) }
    case .chain(let file): try inMemory { () throws(StoreError) in try unsafe file.write(bytes, at: offset) }
    case .bytes(let array, let inode):
      try inMemory { () throws(StoreError) in try unsafe array.write(inode, bytes, at: offset) }
    case .disk(let volume): try onDisk { () throws(ExtentFSError) in try unsafe volume.write(bytes, at: offset) }
    case .difference: throw Self.readOnly
    }
  }

  func zero(in range: Range<UInt64>, keepsSpace: Bool) throws(LacunaError) {
    switch self {
    case .extents(let file): try inMemory { () throws(StoreError) in try file.zero(in: range, keepsSpace: keepsSpace) }
    case .chain(let file): try inMemory { () throws(StoreError) in try file.zero(in: range, keepsSpace: keepsSpace) }
    case .bytes(let bytes, let inode): try inMemory { () throws(StoreError) in try bytes.zero(inode, in: range) }
    case .disk(let volume):
      try onDisk { () throws(ExtentFSError) in try volume.zero(in: range, keepsSpace: keepsSpace) }
    case .difference: throw Self.readOnly
    }
  }

  func discard(in range: Range<UInt64>) throws(LacunaError) {
    switch self {
    case .extents(let file): try inMemory { () throws(StoreError) in try file.discard(in: range) }
    case .chain(let file): try inMemory { () throws(StoreError) in try file.discard(in: range) }
    case .bytes(let bytes, let inode): try inMemory { () throws(StoreError) in try bytes.zero(inode, in: range) }
    case .disk(let volume): try onDisk { () throws(ExtentFSError) in try volume.discard(in: range) }
    case .difference: throw Self.readOnly
    }
  }

  /// Makes everything durable that completed before this call.
  func sync() throws(LacunaError) {
    switch self {
    case .extents(let file): try inMemory { () throws(StoreError) in try file.sync() }
    case .chain(let file): try inMemory { () throws(StoreError) in try file.sync() }
    case .bytes: break  // In memory; there is nothing more durable.
    case .disk(let volume): try onDisk { () throws(ExtentFSError) in try volume.flush() }
    case .difference: break  // Of snapshots, which are durable.
    }
  }

  /// Begins to bring what lies in `range` nearer, and does not wait for it. In memory everything is near already.
  func prefetch(in range: Range<UInt64>) throws(LacunaError) {
    switch self {
    case .extents, .chain, .bytes: break
    case .disk(let volume): try onDisk { () throws(ExtentFSError) in try volume.readAhead(in: range) }
    case .difference(let difference):
      try onDisk { () throws(ExtentFSError) in try difference.new.readAhead(in: range) }
    }
  }

  /// Calls `visit` with maximal ranges of one kind that cover `range`, in order, until it returns false.
  func forEachExtent(
    in range: Range<UInt64>, _ visit: (Range<UInt64>, VolumeExtent.Kind) throws(LacunaError) -> Bool
  ) throws(LacunaError) {
    switch self {
    case .extents(let file):
      try file.forEachExtent(in: range) { bytes, kind throws(LacunaError) in try visit(bytes, VolumeExtent.Kind(kind)) }
    case .chain(let file):
      try file.forEachExtent(in: range) { bytes, kind throws(LacunaError) in try visit(bytes, VolumeExtent.Kind(kind)) }
    case .bytes: _ = try visit(range, .data)  // The interface tells nothing of holes.
    case .disk(let volume):
      var failure: LacunaError?
      try onDisk { () throws(ExtentFSError) in
        try volume.forEachExtent(in: range) { bytes, kind throws(ExtentFSError) in
          do throws(LacunaError) {
            return try visit(bytes, VolumeExtent.Kind(kind))
          } catch {
            failure = error
            return false
          }
        }
      }
      if let failure { throw failure }
    case .difference(let difference): try difference.forEachExtent(in: range, visit)
    }
  }

  /// The error for a change of a difference. Clients are told that it is read-only, and do not ask.
  private static var readOnly: LacunaError { LacunaError(.readOnly, "a difference of snapshots is read-only") }

  /// The unit of reading and writing that costs least, in bytes.
  var preferredByteCount: Int {
    switch self {
    case .extents(let file): file.blockSize.byteCount
    case .chain(let file): file.blockSize.byteCount
    case .bytes: 4096  // A page.
    case .disk(let volume): volume.preferredByteCount
    case .difference(let difference): difference.new.preferredByteCount
    }
  }

  /// Whether zeroing costs no more than O(log n), whatever the length, if space need not be kept.
  var zeroesByMapping: Bool {
    switch self {
    case .extents, .chain, .disk, .difference: true
    case .bytes: false
    }
  }

  /// Whether that holds also if space is to be kept.
  var reservesZeroes: Bool {
    switch self {
    case .extents, .disk, .difference: true
    case .chain, .bytes: false
    }
  }
}

@inline(__always)
private func inMemory<Result>(_ body: () throws(StoreError) -> Result) throws(LacunaError) -> Result {
  do { return try body() } catch { throw LacunaError(error) }
}

extension VolumeExtent.Kind {
  init(_ content: RangeContent) {
    self =
      switch content {
      case .data: .data
      case .unwritten: .zero
      case .hole: .hole
      }
  }
}
