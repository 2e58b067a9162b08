internal import CLinux
internal import Glibc
internal import Lacuna

/// Whether other users could take the name of a socket away, and give clients a server of theirs: the check that sshd(8) makes of
/// its users' files.
enum SharedFolder {
  /// Refuses a socket in a folder that others may write to, or that they may put another one in the place of.
  ///
  /// - Parameters:
  ///   - socket: the socket's path, from the root on.
  ///   - store: the store that is served; who owns it may own the folder, and has its bytes anyway.
  static func refuse(forSocket socket: String, ofStore store: String?) throws {
    let slash = socket.utf8.lastIndex(of: UInt8(ascii: "/")) ?? socket.startIndex
    let folder = slash == socket.startIndex ? "/" : String(socket[..<slash])
    var trusted: Set<uid_t> = [0, geteuid()]
    if let owner = store.flatMap(FoundFile.init(at:))?.owner { trusted.insert(owner) }
    guard let reason = try reason(against: folder, trusting: trusted) else { return }
    throw Failure(
      "the socket \(socket) would be where others may take its name: \(reason); choose a folder of your own with --socket, "
        + "or say --shared-folder if that is meant")
  }

  private static func reason(against folder: String, trusting trusted: Set<uid_t>) throws -> String? {
    var descriptor = try openFolder(AT_FDCWD, folder, "\(folder)")
    defer { close(descriptor) }
    var status = try look(descriptor, folder)
    if let reason = ownership(status, trusted) { return "the folder \(folder) \(reason)" }
    if status.st_mode & 0o022 != 0 { return "others may write to the folder \(folder)" }
    while true {
      let parent = try openFolder(descriptor, "..", "a folder above \(folder)")
      close(descriptor)
      descriptor = parent
      let above = try look(descriptor, folder)
      // Above the root is the root.
      if above.st_dev == status.st_dev, above.st_ino == status.st_ino { return nil }
      status = above
      let name = { StoreFile.absolute("/proc/self/fd/\(descriptor)") }
      if let reason = ownership(status, trusted) { return "the folder \(name()), above it, \(reason)" }
      // In a sticky folder, as /tmp is, only the owner of a name may rename it.
      if status.st_mode & 0o022 != 0, status.st_mode & S_ISVTX == 0 {
        return "others may write to the folder \(name()), above it"
      }
    }
  }

  private static func ownership(_ status: stat, _ trusted: Set<uid_t>) -> String? {
    trusted.contains(status.st_uid) ? nil : "belongs to the user \(status.st_uid)"
  }

  private static func openFolder(_ base: Int32, _ path: String, _ name: String) throws -> Int32 {
    // Safe: the string lives as long as the call.
    let descriptor = unsafe openat(base, path, lacuna_O_PATH | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw Failure("cannot look at \(name): \(Process.text(ofError: errno))") }
    return descriptor
  }

  private static func look(_ descriptor: Int32, _ folder: String) throws -> stat {
    var status = Glibc.stat()
    // Safe: as above.
    guard unsafe fstat(descriptor, &status) == 0 else {
      throw Failure("cannot look at \(folder): \(Process.text(ofError: errno))")
    }
    return status
  }
}
