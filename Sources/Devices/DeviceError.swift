/// A failed call on a `BlockDevice`: which one, on which bytes, and the system's error number.
public struct DeviceError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The call that failed.
  public enum Operation: String, Sendable {
    case open, lock, read, write, sync, discard, grow
  }

  /// The call that failed.
  public var operation: Operation
  /// The system's error number, such as `EIO`.
  public var errno: Int32
  /// The first byte of the range asked for; 0 where the call has no range.
  public var offset: UInt64
  /// The length of the range asked for in bytes; 0 where the call has no range.
  public var byteCount: UInt64
}
