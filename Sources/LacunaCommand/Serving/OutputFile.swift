internal import Glibc
internal import Lacuna

/// A file that a server writes beside its work: its log, or the number of its process.
///
/// It is opened in a way that lets nobody else choose what is written to: a regular file of this user's or root's, which has one name,
/// and is not reached through a link; or what stands for a file that is open already, or for none (`/dev/stderr`, `/dev/null`).
final class OutputFile {
  let descriptor: Int32
  private let folder: TrustedFolder?
  /// Whether it was not there before.
  let isNew: Bool

  private init(_ descriptor: Int32, in folder: TrustedFolder?, isNew: Bool) {
    (self.descriptor, self.folder, self.isNew) = (descriptor, folder, isNew)
  }

  deinit { close(descriptor) }

  /// Opens a log, to write at its end; makes it, for this user alone, where it is not there.
  static func log(at path: String) throws -> OutputFile {
    if let open = try descriptor(calledBy: path) { return OutputFile(open, in: nil, isNew: false) }
    let folder = try TrustedFolder(ofFile: path, for: "--log")
    let flags = O_RDWR | O_APPEND | O_NONBLOCK
    var isNew = true
    var file = folder.open(folder.name, flags | O_CREAT | O_EXCL)
    if file < 0, errno == EEXIST {
      isNew = false
      file = folder.open(folder.name, flags)
    }
    guard file >= 0 else { throw failure(errno, path, "--log") }
    let output = OutputFile(file, in: folder, isNew: isNew)
    try check(file, path, "--log")
    _ = fcntl(file, F_SETFL, O_APPEND)
    return output
  }

  /// Writes this process's number to a file, in one step: a reader sees all of it or nothing.
  static func writeNumber(to path: String) throws -> OutputFile {
    let text = "\(getpid())\n"
    if let open = try descriptor(calledBy: path) {
      let output = OutputFile(open, in: nil, isNew: false)
      try write(text, to: open, path)
      return output
    }
    let folder = try TrustedFolder(ofFile: path, for: "--pidfile")
    // What is there is not written to, but what else it is tells whether it may be replaced.
    let old = folder.open(folder.name, O_RDONLY | O_NONBLOCK)
    if old >= 0 {
      defer { close(old) }
      if try check(old, path, "--pidfile") {
        let device = folder.open(folder.name, O_WRONLY | O_NONBLOCK)
        guard device >= 0 else { throw failure(errno, path, "--pidfile") }
        let output = OutputFile(device, in: nil, isNew: false)
        try write(text, to: device, path)
        return output
      }
    } else if errno != ENOENT {
      throw failure(errno, path, "--pidfile")
    }
    let temporary = ".lacuna-\(String(UInt32.random(in: 0x1000_0000 ... .max), radix: 16)).pid"
    let file = folder.open(temporary, O_WRONLY | O_CREAT | O_EXCL)
    guard file >= 0 else { throw failure(errno, path, "--pidfile") }
    let output = OutputFile(file, in: folder, isNew: true)
    do {
      try write(text, to: file, path)
      guard unsafe renameat(folder.descriptor, temporary, folder.descriptor, folder.name) == 0 else {
        throw failure(errno, path, "--pidfile")
      }
    } catch {
      unsafe unlinkat(folder.descriptor, temporary, 0)
      throw error
    }
    return output
  }

  /// Removes its name, if that is still its own. One that stands for something else has none.
  func remove() { folder?.remove(ifStill: descriptor) }

  /// A second descriptor of the file that a path such as `/dev/stderr` or `/dev/fd/3` means, which are links to what this process has
  /// open; nil for other paths.
  private static func descriptor(calledBy path: String) throws -> Int32? {
    let number: Int32
    switch path {
    case "/dev/stdin": number = STDIN_FILENO
    case "/dev/stdout": number = STDOUT_FILENO
    case "/dev/stderr": number = STDERR_FILENO
    default:
      let prefixes = ["/dev/fd/", "/proc/self/fd/"]
      guard let prefix = prefixes.first(where: path.hasPrefix), let given = Int32(path.dropFirst(prefix.count)) else {
        return nil
      }
      number = given
    }
    let copy = fcntl(number, F_DUPFD_CLOEXEC, 3)
    guard copy >= 0 else { throw Failure("\(path) is not open; name a file") }
    return copy
  }

  /// Refuses what somebody else may have put there.
  ///
  /// - Returns: whether it is a device, such as `/dev/null`.
  @discardableResult
  private static func check(_ file: Int32, _ path: String, _ option: String) throws -> Bool {
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    guard unsafe fstat(file, &status) == 0 else { throw failure(errno, path, option) }
    guard [0, geteuid()].contains(status.st_uid) else {
      throw Failure(
        "\(path) belongs to \(User.text(status.st_uid)), and is not written to; remove it, or choose another file with \(option)"
      )
    }
    switch status.st_mode & S_IFMT {
    case S_IFCHR: return true
    case S_IFREG where status.st_nlink == 1: return false
    case S_IFREG:
      throw Failure(
        "\(path) has other names too, and is not written to; remove it, or choose another file with \(option)")
    default:
      throw Failure(
        "\(path) is no regular file, and is not written to; remove it, or choose another file with \(option)")
    }
  }

  private static func write(_ text: String, to file: Int32, _ path: String) throws {
    // Safe: the text outlives the call.
    guard unsafe Glibc.write(file, text, text.utf8.count) == text.utf8.count else {
      throw Failure("cannot write \(path): \(Process.text(ofError: errno))")
    }
  }

  private static func failure(_ error: Int32, _ path: String, _ option: String) -> Failure {
    let reason = error == ELOOP ? "it is a symbolic link, which is not followed" : Process.text(ofError: error)
    return Failure("cannot write \(path): \(reason); choose another file with \(option)")
  }
}
