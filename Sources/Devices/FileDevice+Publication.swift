import SystemPackage

extension FileDevice {
  /// How much of a block device `startAnew` makes zero: all places where file systems, partition tables, RAID and the like keep what
  /// they are known by, in bytes from its beginning and from its end.
  package static let markedByteCounts = (beginning: UInt64(8 << 20), end: UInt64(1 << 20))

  /// Begins to make something new on a block device, in place of all that it held: what is written to its first `byteCount` bytes is
  /// kept in memory until `publish`. So what is made is there whole or not at all, whatever happens meanwhile.
  ///
  /// When this returns, what the device held is not recognized any more, also after a power cut, and its storage is given back as far
  /// as the device can.
  ///
  /// - Parameter byteCount: at most the device's length.
  package func startAnew(holdingBack byteCount: Int) throws(DeviceError) {
    do throws(Errno) {
      try requireChangeable()
      guard isBlockDevice, access == .readWrite, UInt64(byteCount) <= self.byteCount else { throw .invalidArgument }
      let marked = Self.markedByteCounts
      try writeZeroes(0..<min(max(marked.beginning, UInt64(byteCount)), self.byteCount))
      try writeZeroes(self.byteCount - min(marked.end, self.byteCount)..<self.byteCount)
    } catch {
      throw failure(.write, error)
    }
    try sync()
    // A device that cannot keeps the space, and nothing else changes.
    let (first, last) = (max(Self.markedByteCounts.beginning, UInt64(byteCount)), Self.markedByteCounts.end)
    if self.byteCount > first + last { try? giveBackBlocks(of: first..<self.byteCount - last) }
    publication.hold(byteCount)
  }

  /// Makes durable what was made anew, and only then writes what was held back of it: all but the ranges `last`, and when that is
  /// durable these, each when the one before is.
  private func publishHeld(_ last: [Range<UInt64>]) throws(DeviceError) {
    let bytes = publication.release()
    try sync()
    var first = bytes
    for range in last { for index in range.clamped(to: 0..<UInt64(bytes.count)) { first[Int(index)] = 0 } }
    try write(first, 0..<UInt64(bytes.count))
    for range in last { try write(bytes, range.clamped(to: 0..<UInt64(bytes.count))) }
  }

  /// Writes `range` of `bytes` to where it is in them, and makes it durable.
  private func write(_ bytes: [UInt8], _ range: Range<UInt64>) throws(DeviceError) {
    let result = unsafe bytes.withUnsafeBytes { buffer in
      // Safe: the pointer is used inside the closure only, and the range is inside the bytes.
      let piece = unsafe UnsafeRawBufferPointer(rebasing: buffer[Int(range.lowerBound)..<Int(range.upperBound)])
      return Result { () throws(DeviceError) in try unsafe write(piece, at: range.lowerBound) }
    }
    try result.get()
    try sync()
  }

  /// Makes the file durable, then gives it the name `path`, then makes that durable; of a block device, what was held back is written
  /// when all else is durable. Does nothing to what is published.
  ///
  /// - Parameter last: what of the bytes that were held back comes last, zeroes before, in this order: what shows that all is there.
  /// - Throws: `DeviceError` of the operation `open`, with `EEXIST` where something has the name by now, or of the operation
  ///   `sync`. The file is gone then.
  package func publish(last: [Range<UInt64>] = []) throws(DeviceError) {
    if publication.isDone { return }
    if isBlockDevice { return try publishHeld(last) }
    try publication.giveName(path, to: descriptor)
  }

  /// Removes a file that was not published; it can be used until it is closed. Does nothing to any other.
  package func abandon() { publication.abandon() }
}
