internal import Glibc
internal import Lacuna

/// What can be known of a store without opening it.
enum StoreFile {
  /// Whether there is something at `path`, whatever it is.
  static func exists(_ path: String) -> Bool {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    return unsafe stat(path, &status) == 0
  }

  /// The same path from the root on, symbolic links followed, as a server says it; as it is where nothing is there.
  static func absolute(_ path: String) -> String {
    FoundFile(at: path)?.path ?? path
  }
}
