import CLibNBD
import Glibc

/// A failed call of libnbd: which one, the error number that the server or the library gave, and the library's text.
package struct NBDError: Error, CustomStringConvertible {
  package var operation: String
  package var code: Int32
  package var message: String

  package var description: String { message.isEmpty ? "\(operation): \(String(cString: strerror(code)))" : message }

  /// The error that this thread's last call of libnbd left.
  static func last(_ operation: String) -> NBDError {
    let message = nbd_get_error().map { String(cString: $0) } ?? ""
    return NBDError(operation: operation, code: nbd_get_errno(), message: message)
  }
}
