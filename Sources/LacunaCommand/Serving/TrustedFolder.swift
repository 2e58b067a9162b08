internal import CLinux
internal import Glibc
internal import Lacuna

/// The folder of a file that is to be written, open: found without following a symbolic link that somebody else could have put there.
///
/// Links of this user's and root's are followed, such as that from `/var/run` to `/run`. What is in the folder is named by way of its
/// descriptor from then on.
final class TrustedFolder {
  let descriptor: Int32
  /// The file's name in it.
  let name: String
  private let path: String

  private static let linkCountMax = 40

  init(ofFile path: String, for option: String) throws {
    self.path = path
    let parts = path.pathParts
    guard let last = parts.last, path.utf8.last != UInt8(ascii: "/"), last != ".", last != ".." else {
      throw Failure("\(path) is the path of a folder, not of a file; choose a file with \(option)")
    }
    name = last
    descriptor = try Self.open(path.isAbsolutePath, parts.dropLast(), path, option)
  }

  deinit { close(descriptor) }

  private static func open(_ isAbsolute: Bool, _ folders: ArraySlice<String>, _ path: String, _ option: String)
    throws -> Int32
  {
    func failure(_ part: some StringProtocol) -> Failure {
      Failure(
        "cannot write \(path): the folder '\(part)' in that path: \(Process.text(ofError: errno)); choose another file with \(option)"
      )
    }
    // The next one is the last.
    var left = Array(folders.reversed())
    var linkCount = 0
    var current = unsafe Glibc.open(isAbsolute ? "/" : ".", lacuna_O_PATH | O_DIRECTORY | O_CLOEXEC)
    guard current >= 0 else { throw failure("/") }
    while let part = left.popLast() {
      let next = unsafe openat(current, part, lacuna_O_PATH | O_NOFOLLOW | O_CLOEXEC)
      guard next >= 0 else {
        defer { close(current) }
        throw failure(part)
      }
      var status = stat()
      // Safe: the kernel fills in a structure of this type, which outlives the call.
      unsafe fstat(next, &status)
      guard status.st_mode & S_IFMT == S_IFLNK else {
        close(current)
        current = next
        continue
      }
      defer { close(next) }
      linkCount += 1
      guard [0, geteuid()].contains(status.st_uid), linkCount <= linkCountMax, let target = target(of: next) else {
        close(current)
        throw Failure(
          "cannot write \(path): '\(part)' in that path is a symbolic link of \(User.text(status.st_uid)), which is not followed; choose another file "
            + "with \(option)")
      }
      if target.isAbsolutePath {
        close(current)
        current = unsafe Glibc.open("/", lacuna_O_PATH | O_DIRECTORY | O_CLOEXEC)
      }
      left += target.pathParts.reversed()
    }
    return current
  }

  private static func target(of link: Int32) -> String? {
    var bytes = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
    // Safe: the call fills in no more than the array holds, and says how much.
    let count = unsafe readlinkat(link, "", &bytes, bytes.count)
    guard count > 0, count < bytes.count else { return nil }
    return String(decoding: bytes[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  /// Opens a file in the folder, and no link; the number is negative where that fails.
  func open(_ name: String, _ flags: Int32, mode: mode_t = 0o600) -> Int32 {
    // Safe: the string lives as long as the call.
    unsafe openat(descriptor, name, flags | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, mode)
  }

  /// Removes the file, if it is still the one that `file` is a descriptor of.
  func remove(ifStill file: Int32) {
    var (own, found) = (stat(), stat())
    // Safe: the kernel fills in structures of this type, which outlive the calls.
    guard unsafe fstat(file, &own) == 0, unsafe fstatat(descriptor, name, &found, AT_SYMLINK_NOFOLLOW) == 0,
      own.st_dev == found.st_dev, own.st_ino == found.st_ino
    else { return }
    unsafe unlinkat(descriptor, name, 0)
  }
}
