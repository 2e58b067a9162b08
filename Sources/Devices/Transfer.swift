package import SystemPackage

/// Transfers of whole buffers, made of system calls that may move fewer bytes than they were asked to.
///
/// The call is a parameter, which is the seam at which tests inject short transfers; the optimiser removes it.
package enum Transfer {
  /// Fills `buffer` from `offset` on.
  ///
  /// - Parameter call: fills some of the buffer it gets with what is at the offset it gets, and returns how much.
  /// - Throws: what `call` throws, and `EIO` where it moved no byte, which is how `pread` reports the end of a file,
  ///   or claims to have moved too many. It is never asked again then.
  @inline(__always)
  package static func fill(
    _ buffer: UnsafeMutableRawBufferPointer, at offset: Int64,
    call: (UnsafeMutableRawBufferPointer, Int64) throws(Errno) -> Int
  ) throws(Errno) {
    try inParts(buffer.count, at: offset) { moved, offset throws(Errno) in
      // Safe: `moved` is less than the buffer's count.
      try unsafe call(UnsafeMutableRawBufferPointer(rebasing: buffer[moved...]), offset)
    }
  }

  /// Writes all of `buffer` from `offset` on.
  ///
  /// - Parameter call: writes some of the buffer it gets to the offset it gets, and returns how much.
  /// - Throws: as for `fill`.
  @inline(__always)
  package static func drain(
    _ buffer: UnsafeRawBufferPointer, at offset: Int64, call: (UnsafeRawBufferPointer, Int64) throws(Errno) -> Int
  ) throws(Errno) {
    try inParts(buffer.count, at: offset) { moved, offset throws(Errno) in
      // Safe: `moved` is less than the buffer's count.
      try unsafe call(UnsafeRawBufferPointer(rebasing: buffer[moved...]), offset)
    }
  }

  @inline(__always)
  private static func inParts(
    _ byteCount: Int, at offset: Int64, part: (_ moved: Int, _ offset: Int64) throws(Errno) -> Int
  ) throws(Errno) {
    var moved = 0
    while moved < byteCount {
      let (position, overflows) = offset.addingReportingOverflow(Int64(moved))
      guard !overflows else { throw .invalidArgument }
      let count = try part(moved, position)
      guard count > 0, count <= byteCount - moved else { throw .ioError }
      moved += count
    }
  }
}
