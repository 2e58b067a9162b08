internal import Bytes
package import Devices

/// What a new store is to be like.
package struct FormatOptions: Sendable {
  /// The size of its blocks in bytes: a power of two from 4096 to 65536 (tests use 1024).
  package var blockByteCount = 4096
  /// The length of its journal in bytes: a multiple of 65536.
  package var journalByteCount: UInt64 = 16 << 20
  /// The length in bytes that its file does not grow beyond; 0 for none.
  package var limitByteCount: UInt64 = 0
  /// Seconds since 1970.
  package var createdSeconds: UInt64 = 0
  /// Which store it is to be; nil for a random one.
  package var uuid: StoreUUID?

  /// The defaults.
  package init() {}
}

extension Engine {
  /// Where everything is to be in a store that `format` makes; nothing is written.
  ///
  /// - Throws: `.invalidArgument` where it cannot be made.
  package static func geometry(of options: FormatOptions, on device: any BlockDevice) throws(ExtentFSError)
    -> StoreGeometry
  {
    guard let blockSize = BlockSize(byteCount: options.blockByteCount) else {
      throw ExtentFSError(.invalidArgument, "a store cannot have blocks of \(options.blockByteCount) bytes")
    }
    // What is durable and what is written later must never share a sector.
    guard device.geometry.sectorByteCount <= JournalFormat.blockByteCount else {
      throw ExtentFSError(
        .invalidArgument,
        "the device has sectors of \(device.geometry.sectorByteCount) bytes, and a store needs sectors of at most "
          + "\(JournalFormat.blockByteCount)")
    }
    let geometry = try StoreGeometry(blockSize: blockSize, journalByteCount: options.journalByteCount)
    let headByteCount = blockSize.offset(of: geometry.headBlockCount)
    guard device.canGrow || device.byteCount >= headByteCount else {
      throw ExtentFSError(
        .invalidArgument,
        "the device has \(device.byteCount) bytes, and a store with a journal of \(options.journalByteCount) takes "
          + "\(headByteCount) besides its volumes")
    }
    guard device.canGrow || options.limitByteCount == 0 else { throw limitOnDevice }
    return geometry
  }

  /// Why there is no limit for a store on a block device.
  static var limitOnDevice: ExtentFSError {
    ExtentFSError(.invalidArgument, "a limit is for a store in a file; on a block device, a store is as large as that")
  }

  /// Makes an empty store on `device`, which grows as far as needed. What the device held is lost.
  ///
  /// The superblock comes last: a crash before it is durable leaves something that is no store.
  package static func format(_ device: any BlockDevice, _ options: FormatOptions) throws(ExtentFSError) {
    let geometry = try geometry(of: options, on: device)
    let blockSize = geometry.blockSize
    let headByteCount = blockSize.offset(of: geometry.headBlockCount)
    do throws(DeviceError) {
      if device.byteCount < headByteCount { try device.grow(to: headByteCount) }
      try device.writeZeroes(0..<geometry.journalRegion.lowerBound, pieceByteCount: 1 << 17)
      // The journal is written once beforehand, so that its blocks are there: a sync is then about twice as fast. In small
      // pieces, which the kernel keeps in small folios (see `MappedRange`).
      try device.writeZeroes(geometry.journalRegion, pieceByteCount: 4096)
      try device.sync()
    } catch {
      throw ExtentFSError(error)
    }
    let blockCount = device.byteCount >> blockSize.shift
    var superblock = Superblock(
      uuid: options.uuid ?? .random(), geometry: geometry, generation: 1, blockCount: blockCount)
    superblock.groupCount = geometry.groupCount(inDeviceOf: blockCount)
    superblock.createdSeconds = options.createdSeconds
    superblock.add(.snapshots)
    superblock.setLimit(options.limitByteCount)
    try device.writeSuperblock(superblock, slot: 0)
    do { try device.sync() } catch { throw ExtentFSError(error) }
  }
}

extension BlockDevice {
  fileprivate func writeZeroes(_ range: Range<UInt64>, pieceByteCount: Int) throws(DeviceError) {
    let zeroes = UnsafeMutableRawBufferPointer.allocate(byteCount: pieceByteCount, alignment: 4096)
    defer { unsafe zeroes.deallocate() }
    unsafe zeroes.initializeMemory(as: UInt8.self, repeating: 0)
    var next = range.lowerBound
    while next < range.upperBound {
      let count = Int(min(UInt64(zeroes.count), range.upperBound - next))
      // Safe: `count` is at most the buffer's.
      try unsafe write(UnsafeRawBufferPointer(rebasing: zeroes[..<count]), at: next)
      next += UInt64(count)
    }
  }
}
