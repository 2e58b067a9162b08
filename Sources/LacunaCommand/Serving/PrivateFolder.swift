internal import Glibc
internal import Lacuna

/// A new folder that only this user may enter, for the socket and the log of a server that are not beside its store.
struct PrivateFolder {
  let path: String

  /// Makes it below $XDG_RUNTIME_DIR, or below /tmp.
  static func make() throws -> PrivateFolder {
    var template = Array("\(parent)/lacuna.XXXXXX".utf8CString)
    // Safe: the kernel writes the name into the array, which keeps its length.
    guard unsafe mkdtemp(&template) != nil else {
      throw Failure("cannot make a folder in \(parent): \(Process.text(ofError: errno))")
    }
    return PrivateFolder(path: String(decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self))
  }

  var socket: String { "\(path)/socket" }
  var log: String { "\(path)/log" }

  /// Removes it, with the log where that has nothing to tell any more. It stays where something else is in it.
  func remove(withLog: Bool) {
    if withLog { unsafe unlink(log) }
    unsafe rmdir(path)
  }

  private static var parent: String {
    // After su(1) or sudo(8) it may be another user's.
    guard let folder = StorePlace.ownRuntimeFolder, unsafe access(folder, W_OK | X_OK) == 0 else { return "/tmp" }
    return folder
  }
}
