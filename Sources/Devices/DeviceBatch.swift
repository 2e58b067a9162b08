/// A piece of a batch of reads: where on the device it begins, and the memory that it fills.
///
/// The memory is the caller's, and lives until the call that reads the batch has returned.
@unsafe package struct DeviceRead {
  /// The piece's first byte on the device.
  package var offset: UInt64
  /// The memory that it fills, from the first byte to the last.
  package var buffer: UnsafeMutableRawBufferPointer

  /// Makes a piece that fills `buffer` with the bytes from `offset` on.
  package init(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) {
    unsafe self.buffer = buffer
    unsafe self.offset = offset
  }
}

/// A piece of a batch of writes: where on the device it begins, and its bytes.
///
/// The memory is the caller's, and lives until the call that writes the batch has returned.
@unsafe package struct DeviceWrite {
  /// The piece's first byte on the device.
  package var offset: UInt64
  /// The bytes to write.
  package var buffer: UnsafeRawBufferPointer

  /// Makes a piece that writes all of `buffer` from `offset` on.
  package init(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) {
    unsafe self.buffer = buffer
    unsafe self.offset = offset
  }
}

extension BlockDevice {
  /// Reads the pieces one after the other.
  package func read(_ batch: [DeviceRead]) throws(DeviceError) { try unsafe readEach(batch) }

  /// Writes the pieces one after the other.
  package func write(_ batch: [DeviceWrite]) throws(DeviceError) { try unsafe writeEach(batch) }

  /// Reads the pieces one after the other.
  func readEach(_ batch: [DeviceRead]) throws(DeviceError) {
    for index in unsafe batch.indices {
      let piece = unsafe batch[index]
      try unsafe read(into: piece.buffer, at: piece.offset)
    }
  }

  /// Writes the pieces one after the other.
  func writeEach(_ batch: [DeviceWrite]) throws(DeviceError) {
    for index in unsafe batch.indices {
      let piece = unsafe batch[index]
      try unsafe write(piece.buffer, at: piece.offset)
    }
  }
}
