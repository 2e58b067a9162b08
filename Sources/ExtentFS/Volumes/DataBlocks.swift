internal import Bytes
internal import Checksums
internal import Devices
internal import Extents

/// The blocks of data on a device, and their checksums: what is read is checked.
///
/// Thread safety: any thread. It takes no lock but those of the table of checksums.
struct DataBlocks: Sendable {
  let device: any BlockDevice
  private let checksums: ChecksumTable
  private let blockSize: BlockSize

  init(_ device: any BlockDevice, _ checksums: ChecksumTable, _ blockSize: BlockSize) {
    (self.device, self.checksums, self.blockSize) = (device, checksums, blockSize)
  }

  /// Writes `bytes`, whole blocks with the given checksums, into `run`.
  func write(
    _ bytes: UnsafeRawBufferPointer, _ sums: UnsafeBufferPointer<UInt32>, in run: PhysicalRun
  ) throws(ExtentFSError) {
    do {
      try unsafe device.write(bytes, at: blockSize.offset(of: run.block))
    } catch {
      throw ExtentFSError(error)
    }
    unsafe checksums.set(run, sums)
  }

  /// Reads whole blocks from `block` on into `buffer` and compares each with its checksum.
  func read(
    _ buffer: UnsafeMutableRawBufferPointer, from block: UInt64, for volume: OpenVolume, at logical: UInt64
  ) throws(ExtentFSError) {
    let end = device.byteCount >> blockSize.shift
    guard block < end, UInt64(buffer.count) >> blockSize.shift <= end - block else {
      throw ExtentFSError(
        .damaged,
        "volume '\(volume.name)', offset \(blockSize.offset(of: logical)): block \(block) is past the end of the device"
      ).naming(volume: volume.name)
    }
    do {
      try unsafe device.read(into: buffer, at: blockSize.offset(of: block))
    } catch {
      throw ExtentFSError(error)
    }
    let count = buffer.count >> Int(blockSize.shift)
    if count == 1 {
      return try unsafe verify(buffer, block, checksums.checksum(of: block), volume, logical)
    }
    var sums = InlineArray<256, UInt32>(repeating: 0)
    var done = 0
    while done < count {
      let part = done..<min(done + sums.count, count)
      var span = sums.mutableSpan
      // Safe: there is room for the sums of a part.
      try unsafe span.withUnsafeMutableBufferPointer { sums throws(ExtentFSError) in
        try unsafe checksums.getChecksums(
          of: PhysicalRun(block: block + UInt64(done), count: UInt64(part.count)),
          into: UnsafeMutableBufferPointer(rebasing: sums[..<part.count]))
      }
      for index in part {
        // Safe: the block lies in the buffer.
        let start = index << Int(blockSize.shift)
        let bytes = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[start..<start + blockSize.byteCount])
        try unsafe verify(bytes, block + UInt64(index), sums[index - done], volume, logical + UInt64(index))
      }
      done = part.upperBound
    }
  }

  /// Refuses the bytes of a block that do not have its checksum.
  @inline(__always)
  private func verify(
    _ bytes: UnsafeMutableRawBufferPointer, _ block: UInt64, _ expected: UInt32, _ volume: OpenVolume, _ logical: UInt64
  ) throws(ExtentFSError) {
    let found = unsafe CRC32C.checksum(UnsafeRawBufferPointer(bytes))
    guard found == expected else {
      throw ExtentFSError(
        .damaged,
        "volume '\(volume.name)', offset \(blockSize.offset(of: logical)): block \(block) "
          + "has the checksum \(found), and \(expected) was expected"
      ).naming(volume: volume.name)
    }
  }

  /// Runs `body` with room for one block.
  func withScratchBlock<Result>(
    _ body: (UnsafeMutableRawBufferPointer) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: blockSize.byteCount, alignment: 4096)
    defer { unsafe scratch.deallocate() }
    return try unsafe body(scratch)
  }

  /// Runs `body` with the checksums of the whole blocks in `bytes`.
  func withChecksums<Result>(
    of bytes: UnsafeRawBufferPointer, _ body: (UnsafeBufferPointer<UInt32>) throws(ExtentFSError) -> Result
  ) throws(ExtentFSError) -> Result {
    let size = blockSize.byteCount
    let count = bytes.count / size
    if count == 1 {
      var sum = unsafe CRC32C.checksum(bytes)
      return try unsafe withUnsafePointer(to: &sum) { pointer throws(ExtentFSError) in
        try unsafe body(UnsafeBufferPointer(start: pointer, count: 1))
      }
    }
    let sums = UnsafeMutableBufferPointer<UInt32>.allocate(capacity: count)
    defer { unsafe sums.deallocate() }
    for index in 0..<count {
      // Safe: the block lies in `bytes`, and there is a place for each block.
      unsafe sums[index] = CRC32C.checksum(UnsafeRawBufferPointer(rebasing: bytes[index * size..<(index + 1) * size]))
    }
    return try unsafe body(UnsafeBufferPointer(sums))
  }
}
