internal import Glibc

extension UnsafeMutableRawBufferPointer {
  /// Makes all bytes zero. `initializeMemory` takes them one by one in a debug build, which made reading holes the longest
  /// part of the tests.
  @inline(__always)
  public func fillWithZeroes() {
    // Safe: the bytes are the buffer's.
    if let base = baseAddress { unsafe memset(base, 0, count) }
  }
}
