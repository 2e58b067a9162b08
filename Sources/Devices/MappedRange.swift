import CLinux
import Glibc
import SystemPackage

/// A range of a file as memory: what is stored there is in the kernel's hands at once, as after a `write`, without a call.
///
/// The file's pages of the range are kept small. Linux writes back whole folios where a mapping made them dirty, and a file
/// that was written or read in large pieces has folios of up to 2 MiB: measured on ext4, a sync after 4 KiB then took
/// 410 µs instead of 145.
///
/// A store to memory has no error to return: where the file was made shorter by somebody who ignored its lock, or the
/// machine's memory fails, the process gets SIGBUS, as with every mapping. What a file system can refuse, `prepare` reports.
///
/// Thread safety: any thread; stores to overlapping ranges have no order unless the caller gives them one.
@safe public final class MappedRange: Sendable {
  /// The length in bytes.
  public let byteCount: Int
  // Safe: mapped until `deinit`, and only reached through the checks below.
  private nonisolated(unsafe) let start: UnsafeMutableRawPointer
  // Kept open, since its setting keeps the folios small that later faults make.
  private let descriptor: FileDescriptor

  private static let pageByteCount = Int(MemoryMapping.pageByteCount)
  /// The largest folio that Linux makes on x86-64, in bytes.
  private static var folioByteCountMax: Int64 { 2 << 20 }

  /// Maps `range` of the regular file that `descriptor` is open on for reading and writing.
  ///
  /// - Throws: `.notSupported` on file systems where a store could fail for want of space, or that are not known; else what
  ///   the system reported.
  init(_ descriptor: FileDescriptor, _ range: Range<UInt64>) throws(Errno) {
    let (offset, byteCount) = (Int64(range.lowerBound), Int64(range.upperBound - range.lowerBound))
    guard byteCount > 0, offset % Int64(Self.pageByteCount) == 0 else { throw .invalidArgument }
    guard try SystemCalls.overwritesInPlace(descriptor) else { throw .notSupported }
    let own = try SystemCalls.openAgain(descriptor)
    do throws(Errno) {
      // Folios may begin before the range and end behind it. Dirty ones stay; whoever wrote them did it in small pieces, or
      // they leave memory in their time.
      let first = max(offset - Self.folioByteCountMax, 0)
      let length = offset - first + byteCount + Self.folioByteCountMax
      try SystemCalls.advise(own, offset: first, byteCount: length, POSIX_FADV_DONTNEED)
      try SystemCalls.advise(own, offset: 0, byteCount: 0, POSIX_FADV_RANDOM)
      try SystemCalls.advise(own, offset: offset, byteCount: byteCount, POSIX_FADV_WILLNEED)
      unsafe start = try SystemCalls.map(own, offset: offset, byteCount: Int(byteCount))
    } catch {
      try? own.close()
      throw error
    }
    self.byteCount = Int(byteCount)
    self.descriptor = own
    // Asks whether this kernel has what `prepare` needs; from Linux 5.14 on.
    try unsafe SystemCalls.advise(start, byteCount: Self.pageByteCount, lacuna_MADV_POPULATE_READ)
  }

  deinit {
    unsafe MemoryMapping.release(start, UInt64(byteCount))
    try? descriptor.close()
  }

  /// Makes `range`, which lies in the mapping, ready for being stored to; it stays so at least until the kernel writes it back.
  ///
  /// - Returns: false where the system cannot read the file or has no room; nothing is changed then.
  public func prepare(_ range: Range<Int>) -> Bool {
    precondition(range.lowerBound >= 0 && range.upperBound <= byteCount, "\(range) is not in the mapping")
    let first = range.lowerBound / Self.pageByteCount * Self.pageByteCount
    do throws(Errno) {
      // Safe: the pages of `range` lie in the mapping, which consists of whole pages.
      try unsafe SystemCalls.advise(
        start + first, byteCount: range.upperBound - first, lacuna_MADV_POPULATE_WRITE)
      return true
    } catch {
      return false
    }
  }

  /// Stores `bytes` from `offset` on; they lie in the mapping.
  @inline(__always)
  public func store(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
    precondition(offset >= 0 && bytes.count <= byteCount - offset, "the bytes do not fit the mapping")
    // Safe: checked above.
    if let source = bytes.baseAddress { unsafe memcpy(start + offset, source, bytes.count) }
  }
}
