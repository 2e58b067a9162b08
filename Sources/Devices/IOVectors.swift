import Glibc
import SystemPackage

/// Buffers that one system call moves to or from one run of bytes, one after the other.
@safe struct IOVectors {
  /// The most buffers that Linux takes in one call, `IOV_MAX`.
  static var countMax: Int { 1024 }
  /// Linux moves less than 2 GiB in one call.
  private static var byteCountMax: Int { 1 << 30 }

  private var vectors: [iovec] = unsafe []
  private var count = 0
  /// The run's first byte.
  private(set) var offset: UInt64 = 0
  /// The run's length.
  private(set) var byteCount = 0

  init() {}

  /// Takes a buffer for the bytes from `offset` on; false where those are not the next ones of the run, or where it has as many as
  /// one call takes. The buffer is the caller's, until the run has been transferred.
  mutating func take(_ buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Bool {
    guard buffer.count > 0 else { return true }
    if count == 0 {
      self.offset = offset
    } else if offset != self.offset + UInt64(byteCount) || count == Self.countMax
      || byteCount > Self.byteCountMax - min(buffer.count, Self.byteCountMax)
    {
      return false
    }
    unsafe vectors.append(iovec(iov_base: buffer.baseAddress, iov_len: buffer.count))
    count += 1
    byteCount += buffer.count
    return true
  }

  /// Moves all of the run, and has no buffer any more.
  ///
  /// - Parameter call: moves some of the bytes of the buffers it gets, at least one, from or to the offset it gets, and returns how
  ///   many. It gets the rest of them next.
  /// - Throws: what `call` throws, and `EIO` where it moved no byte, which is how `preadv` reports the end of a file, or claims to
  ///   have moved too many. It is never asked again then.
  mutating func transfer(
    call: (UnsafeBufferPointer<iovec>, Int64) throws(Errno) -> Int
  ) throws(Errno) {
    defer { self = IOVectors() }
    var first = 0
    while byteCount > 0 {
      guard let position = Int64(exactly: offset) else { throw .invalidArgument }
      let count = try unsafe vectors.withUnsafeBufferPointer { vectors throws(Errno) in
        // Safe: `first` is less than their count, since bytes are left.
        try unsafe call(UnsafeBufferPointer(rebasing: vectors[first...]), position)
      }
      guard count > 0, count <= byteCount else { throw .ioError }
      offset += UInt64(count)
      byteCount -= count
      first += drop(count, from: first)
    }
  }

  /// Takes the first `count` bytes off the vectors from `first` on, and returns how many of these have none left.
  private mutating func drop(_ count: Int, from first: Int) -> Int {
    var (left, index) = (count, first)
    while index < self.count {
      let byteCount = unsafe vectors[index].iov_len
      guard left >= byteCount else { break }
      left -= byteCount
      index += 1
    }
    if left > 0 {
      // Safe: as many bytes of this vector were moved, and it has more.
      unsafe vectors[index].iov_base += left
      unsafe vectors[index].iov_len -= left
    }
    return index - first
  }
}
