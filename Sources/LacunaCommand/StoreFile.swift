internal import Glibc

/// What can be known of a store without opening it.
enum StoreFile {
  /// Whether there is something at `path`, whatever it is.
  static func exists(_ path: String) -> Bool {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    return unsafe stat(path, &status) == 0
  }
}
