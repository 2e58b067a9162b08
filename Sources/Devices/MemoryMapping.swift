import Glibc
import SystemPackage

/// The system calls on anonymous memory, each wrapped once.
enum MemoryMapping {
  /// The size of a page in bytes.
  static let pageByteCount = UInt64(max(sysconf(Int32(_SC_PAGESIZE)), 4096))

  /// Reserves address space for `byteCount` zero bytes, which take memory only when written. See mmap(2).
  ///
  /// - Throws: `ENOMEM` where there is no room.
  static func reserve(_ byteCount: UInt64) throws(Errno) -> UnsafeMutableRawPointer {
    // A mapping has at least one byte.
    guard let length = Int(exactly: max(byteCount, 1)) else { throw .noMemory }
    let address = unsafe mmap(
      nil, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard let address = unsafe address, unsafe address != MAP_FAILED else { throw Errno(rawValue: errno) }
    // Both are wishes, without which the memory works as well: small pages, and no guest's data in a core dump.
    // Safe: the range is the mapping.
    _ = unsafe madvise(address, length, MADV_NOHUGEPAGE)
    _ = unsafe madvise(address, length, MADV_DONTDUMP)
    return unsafe address
  }

  /// Puts zero bytes of the process's own in the place of a mapping of a file. See mmap(2).
  static func replace(_ address: UnsafeMutableRawPointer, _ byteCount: UInt64) throws(Errno) {
    // Safe: the range is the caller's mapping, and remains one.
    let result = unsafe mmap(
      address, Int(byteCount), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)
    if unsafe result == MAP_FAILED { throw Errno(rawValue: errno) }
  }

  /// Gives a reservation back. See munmap(2).
  static func release(_ address: UnsafeMutableRawPointer, _ byteCount: UInt64) {
    // Safe: the caller says that nothing uses the mapping any more.
    unsafe munmap(address, Int(max(byteCount, 1)))
  }

  /// Makes whole pages read as zeroes and takes their memory back. See madvise(2).
  ///
  /// - Returns: whether the system did; it does not for locked memory.
  static func discard(_ address: UnsafeMutableRawPointer, _ byteCount: UInt64) -> Bool {
    // Safe: the caller passes pages of its own mapping.
    unsafe madvise(address, Int(byteCount), MADV_DONTNEED) == 0
  }

  /// How much of the `byteCount` bytes from `address` on is in memory.
  static func residentByteCount(_ address: UnsafeMutableRawPointer, _ byteCount: UInt64) throws(Errno) -> UInt64 {
    var pageCount: UInt64 = 0
    try unsafe forEachPage(address, byteCount) { _, isResident in if isResident { pageCount += 1 } }
    return pageCount * pageByteCount
  }

  /// Tells for each page of the `byteCount` bytes from `address` on, where a page begins, whether it is in memory. See mincore(2).
  static func forEachPage(
    _ address: UnsafeMutableRawPointer, _ byteCount: UInt64, _ body: (_ offset: UInt64, _ isResident: Bool) -> Void
  ) throws(Errno) {
    var states = [UInt8](repeating: 0, count: 1 << 20)
    let step = UInt64(states.count) * pageByteCount
    var offset: UInt64 = 0
    while offset < byteCount {
      let part = min(step, byteCount - offset)
      // Safe: `states` has a byte for each page of the part, which is inside the mapping.
      try SystemCalls.check { unsafe mincore(address + Int(offset), Int(part), &states) }
      for page in 0..<Int((part + pageByteCount - 1) / pageByteCount) {
        body(offset + UInt64(page) * pageByteCount, states[page] & 1 != 0)
      }
      offset += part
    }
  }
}
