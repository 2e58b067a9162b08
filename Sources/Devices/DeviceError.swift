import Glibc
package import SystemPackage

/// A failed call on a `BlockDevice`: which one, on which bytes, and the system's error number.
package struct DeviceError: Error, Equatable, Sendable {
  /// The call that failed.
  package enum Operation: String, Sendable {
    /// Opening or creating a device, and finding out what it is.
    case open
    /// Taking the lock that keeps other openings away.
    case lock
    /// Closing a device.
    case close
    /// One call of `BlockDevice`.
    case read, write, sync, discard, grow
    /// The call `allocatedRuns` of `BlockDevice`.
    case findAllocated = "find what is allocated of"
  }

  /// The call that failed.
  package var operation: Operation
  /// The system's error number, such as `EIO`.
  package var errno: Int32
  /// The first byte of the range asked for; 0 where the call has no range.
  package var offset: UInt64
  /// The length of the range asked for in bytes; 0 where the call has no range. For `grow`, the length asked for.
  package var byteCount: UInt64
  /// Where the device lives; nil for one without a name, such as memory.
  package var path: FilePath?

  /// Makes an error from what failed, on which bytes, and the system's error number.
  package init(
    operation: Operation, errno: Int32, offset: UInt64 = 0, byteCount: UInt64 = 0, path: FilePath? = nil
  ) {
    self.operation = operation
    self.errno = errno
    self.offset = offset
    self.byteCount = byteCount
    self.path = path
  }

  /// Whether the file system below has no room, or a quota or a limit is reached: what failed may succeed later.
  ///
  /// Never so for a failed sync, which is final.
  package var isLackOfSpace: Bool { operation != .sync && [ENOSPC, EDQUOT, EFBIG].contains(errno) }
}
