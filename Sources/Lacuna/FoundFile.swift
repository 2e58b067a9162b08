internal import Glibc
internal import SystemPackage

/// What a path refers to: opened once, by the kernel's own rules for symbolic links (proc(5), `protected_symlinks`), and only then
/// named. What is asked of it later is asked of that file, whatever the path refers to by then.
package struct FoundFile: Sendable {
  let descriptor: Descriptor
  /// Its name from the root on, without symbolic links.
  package let path: String
  /// Whom it belongs to.
  package let owner: UInt32
  /// Its type and permissions, as in stat(2).
  let mode: mode_t
  /// Which file it is.
  let identity: FileIdentity
  /// Which file it is, as a server tells.
  let number: Hello.FileNumber

  /// Looks for what is at `path`; nil where nothing is, or it cannot be looked at.
  package init?(at path: String) {
    guard let found = try? FoundFile(opening: path) else { return nil }
    self = found
  }

  init(opening given: String) throws(Errno) {
    descriptor = try ControlCalls.openReference(given, followsLinks: true)
    let status = try ControlCalls.status(of: descriptor)
    (owner, mode, identity) = (status.st_uid, status.st_mode, FileIdentity(status))
    number =
      status.st_mode & S_IFMT == S_IFBLK
      ? Hello.FileNumber(device: UInt64(status.st_rdev), inode: 0)
      : Hello.FileNumber(device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
    // The kernel's name is not one that leads there where the file is deleted, or outside of this process's root.
    let descriptor = descriptor
    let name = withExtendedLifetime(descriptor) { ControlCalls.target(of: descriptor.path) }
    let isName =
      (try? ControlCalls.identity(of: ControlCalls.openReference(name ?? "", followsLinks: false))) == identity
    path = isName ? name ?? given : FoundFile.absolute(given)
  }

  var isBlockDevice: Bool { mode & S_IFMT == S_IFBLK }

  /// A path from the root on, as it is for the rest.
  private static func absolute(_ path: String) -> String {
    guard !path.isAbsolutePath, let folder = unsafe getcwd(nil, 0) else { return path }
    defer { unsafe free(folder) }
    // Safe: getcwd allocated it, with a NUL at its end.
    return unsafe String(cString: folder) + "/" + path
  }
}
