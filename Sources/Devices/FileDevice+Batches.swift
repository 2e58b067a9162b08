import Bytes
import Glibc
import SystemPackage

/// Pieces that touch on the device are one system call, at most `IOVectors.countMax` of them. Each call sorts its pieces, which
/// costs little beside one system call for each.
extension FileDevice {
  /// Reads all pieces of `batch`, in the order of their offsets.
  ///
  /// - Throws: as for `read(into:at:)`; the range that an error tells is that of one system call.
  package func read(_ batch: [DeviceRead]) throws(DeviceError) {
    // What is in memory costs no system call.
    guard hasAllBytes else { return try unsafe readEach(batch) }
    for index in unsafe batch.indices {
      let piece = unsafe batch[index]
      try unsafe DeviceError.checkRange(
        .read, offset: piece.offset, byteCount: piece.buffer.count, within: byteCount)
    }
    LockOrder.requireMayWait()
    let sorted = unsafe batch.sorted { unsafe $0.offset < $1.offset }
    var vectors = IOVectors()
    for index in unsafe sorted.indices {
      let piece = unsafe sorted[index]
      if unsafe !vectors.take(piece.buffer, at: piece.offset) {
        try fill(&vectors)
        // A run of no bytes takes any piece.
        _ = unsafe vectors.take(piece.buffer, at: piece.offset)
      }
    }
    try fill(&vectors)
  }

  /// Writes all pieces of `batch`, in the order of their offsets.
  ///
  /// - Throws: as for `write(_:at:)`; the range that an error tells is that of one system call.
  package func write(_ batch: [DeviceWrite]) throws(DeviceError) {
    guard hasAllBytes else { return try unsafe writeEach(batch) }
    for index in unsafe batch.indices {
      let piece = unsafe batch[index]
      try unsafe DeviceError.checkRange(
        .write, offset: piece.offset, byteCount: piece.buffer.count, within: byteCount)
    }
    LockOrder.requireMayWait()
    let sorted = unsafe batch.sorted { unsafe $0.offset < $1.offset }
    var vectors = IOVectors()
    for index in unsafe sorted.indices {
      let piece = unsafe sorted[index]
      // Safe: the system reads these bytes only.
      let buffer = unsafe UnsafeMutableRawBufferPointer(mutating: piece.buffer)
      if unsafe !vectors.take(buffer, at: piece.offset) {
        try drain(&vectors)
        _ = unsafe vectors.take(buffer, at: piece.offset)
      }
    }
    try drain(&vectors)
  }

  /// Whether all bytes are in the file, and none in this process's memory.
  private var hasAllBytes: Bool { scratch == nil && publication.isDone }

  private func fill(_ vectors: inout IOVectors) throws(DeviceError) {
    guard vectors.byteCount > 0 else { return }
    let (offset, byteCount) = (vectors.offset, vectors.byteCount)
    do throws(Errno) {
      try unsafe vectors.transfer { vectors, offset throws(Errno) in
        try unsafe SystemCalls.read(descriptor, into: vectors, at: offset)
      }
      counters.noteRead(byteCount)
    } catch {
      throw failure(.read, error, offset: offset, byteCount: UInt64(byteCount))
    }
  }

  private func drain(_ vectors: inout IOVectors) throws(DeviceError) {
    guard vectors.byteCount > 0 else { return }
    let (offset, byteCount) = (vectors.offset, vectors.byteCount)
    do throws(Errno) {
      try requireChangeable()
      try unsafe vectors.transfer { vectors, offset throws(Errno) in
        try unsafe SystemCalls.write(descriptor, vectors, at: offset)
      }
      counters.noteWrite(byteCount)
    } catch {
      throw failure(.write, error, offset: offset, byteCount: UInt64(byteCount))
    }
  }
}
