import Glibc
import SystemPackage

extension DeviceError: CustomStringConvertible {
  /// One line of text for a person: the operation, the range, the path if there is one, and the reason.
  package var description: String {
    "cannot \(request)\(place): \(reason)"
  }

  /// What was asked for, with its range in bytes.
  private var request: String {
    switch operation {
    case .open, .lock, .close, .sync: operation.rawValue
    case .read, .write, .discard, .findAllocated: "\(operation.rawValue) \(byteCount) bytes at offset \(offset)"
    case .grow: "grow to \(byteCount) bytes"
    }
  }

  private var place: String {
    guard let path else { return [.open, .lock, .close].contains(operation) ? " the device" : "" }
    switch operation {
    case .open, .lock, .close: return " \(path)"
    case .read, .write, .sync, .discard, .grow, .findAllocated: return " (\(path))"
    }
  }

  /// The system's text, or a plainer one where this module gave an error number a narrower meaning.
  private var reason: String {
    switch (operation, errno) {
    case (.open, ENOTBLK): "it is neither a regular file nor a block device"
    case (.open, ELOOP): "it is a symbolic link, which is not followed"
    case (.open, ESTALE): "it was replaced by another file while it was being opened"
    case (.lock, EAGAIN), (.lock, EBUSY): "it is in use, by another process or by another opening in this one"
    case (_, EBADF): "it was closed"
    case (.write, EROFS), (.discard, EROFS), (.grow, EROFS): "the device is open for reading only"
    case (.read, EINVAL), (.write, EINVAL), (.discard, EINVAL), (.findAllocated, EINVAL):
      "the range is not inside the device"
    default: Errno(rawValue: errno).description
    }
  }
}
