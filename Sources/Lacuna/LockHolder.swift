internal import Glibc
internal import SystemPackage

/// A process that holds a lock on a store's file. Best effort: Linux tells it in /proc, of the processes that this one may look at.
package struct LockHolder: Sendable, Hashable {
  package var process: Int32
  /// What its program calls itself.
  package var name: String
  /// Whose it is; nil where that cannot be seen.
  package var user: UInt32?
  /// Whether the lock keeps everybody else away, which takes the right to write to the file. The other kind takes the right to read it.
  package var isExclusive: Bool

  /// Whether it is another run of this very program.
  package var isSameProgram: Bool { name == Self.name(of: getpid()) }

  /// Number and name, such as "4711 (nbdkit)".
  var text: String { "\(process) (\(name))" }

  /// Looks for one that holds a lock on `file`, in one pass over all processes.
  ///
  /// - Parameter milliseconds: how long to look at most.
  /// - Returns: nil where none is found by then.
  package static func find(of file: FoundFile, withinMilliseconds milliseconds: UInt32 = 1000) -> LockHolder? {
    let deadline = Instant(millisecondsFromNow: milliseconds)
    let key = LockKey(of: file)
    for process in entries(of: "/proc") {
      guard deadline.millisecondsLeft > 0 else { return nil }
      guard let number = pid_t(process), number != getpid() else { continue }
      if let holder = holder(number, key, until: deadline) { return holder }
    }
    return nil
  }

  /// Whether a process has `file` open for writing, and keeps all others away from it.
  ///
  /// Who may write to a store may make it say anything, so that nothing is lost by believing such a process. One that keeps others
  /// away from reading alone is none: the right to read is enough for that.
  static func hasForWriting(_ process: pid_t, _ file: FoundFile) -> Bool {
    let key = LockKey(of: file)
    guard key.isOfOneFile else { return false }
    return holder(process, key, until: Instant(millisecondsFromNow: 1000), exclusive: true) != nil
  }

  private static func holder(
    _ process: pid_t, _ key: LockKey, until deadline: Instant, exclusive: Bool = false
  ) -> LockHolder? {
    for descriptor in entries(of: "/proc/\(process)/fdinfo") {
      guard deadline.millisecondsLeft > 0 else { return nil }
      let lines = SmallFile.text(of: "/proc/\(process)/fdinfo/\(descriptor)").split(separator: "\n")
      let isExclusive = lines.compactMap(key.exclusiveness(in:))
      guard exclusive ? isExclusive.contains(true) : !isExclusive.isEmpty else { continue }
      let name = name(of: process)
      // It has ended meanwhile, and holds nothing any more.
      guard !name.isEmpty else { return nil }
      return LockHolder(
        process: process, name: name, user: user(of: process), isExclusive: isExclusive.contains(true))
    }
    return nil
  }

  private static func name(of process: pid_t) -> String {
    // Any bytes that a stranger's process chose, and the end of a line.
    String(SmallFile.text(of: "/proc/\(process)/comm").unicodeScalars.dropLast())
  }

  /// The user whose rights it has.
  private static func user(of process: pid_t) -> uid_t? {
    let lines = SmallFile.text(of: "/proc/\(process)/status").split(separator: "\n")
    // "Uid:	real	effective	saved	of the file system"
    let words = lines.first { $0.hasPrefix("Uid:") }?.split(whereSeparator: \.isWhitespace) ?? []
    return words.count > 2 ? uid_t(words[2]) : nil
  }

  private static func entries(of path: String) -> [String] {
    guard let directory = unsafe opendir(path) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    // Safe: an entry is good until the next call on the same directory, and its name ends in a NUL.
    while let entry = unsafe readdir(directory) {
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if !name.hasPrefix(".") { names.append(name) }
    }
    return names
  }
}

/// What the kernel calls a file in its lists of locks: the device of its file system, and its inode there.
private struct LockKey {
  private let text: String
  /// Whether no other file is called so. A file system in parts, such as btrfs, has several of one number.
  let isOfOneFile: Bool

  init(of file: FoundFile) {
    let number = file.identity.device
    let device = (number >> 8 & 0xfff | number >> 32 & ~0xfff, number & 0xff | number >> 12 & ~0xff)
    let mounted = Self.mountedDevice(of: file.descriptor) ?? device
    isOfOneFile = mounted == device
    text = "\(Self.hex(mounted.0)):\(Self.hex(mounted.1)):\(file.identity.inode)"
  }

  /// Whether a line such as "lock:  1: OFDLCK  ADVISORY  WRITE -1 fe:01:1234 0 EOF" says that the file is locked for all others; nil
  /// where it says nothing of the file. Locks of flock(2) are of no account to those of fcntl(2).
  func exclusiveness(in line: Substring) -> Bool? {
    guard line.hasPrefix("lock:") else { return nil }
    let words = line.split(whereSeparator: \.isWhitespace)
    guard words.contains(where: { $0 == text }), words.contains("OFDLCK") || words.contains("POSIX") else { return nil }
    return words.contains("WRITE")
  }

  /// The device that is mounted where the file is: on btrfs another one than stat(2) tells.
  private static func mountedDevice(of descriptor: Descriptor) -> (UInt64, UInt64)? {
    let lines = SmallFile.text(of: "/proc/self/fdinfo/\(descriptor.number)").split(separator: "\n")
    guard let mount = lines.first(where: { $0.hasPrefix("mnt_id:") })?.split(whereSeparator: \.isWhitespace).last else {
      return nil
    }
    guard let mounts = unsafe fopen("/proc/self/mountinfo", "re") else { return nil }
    defer { unsafe fclose(mounts) }
    var line = [CChar](repeating: 0, count: 16_384)
    // Safe: it writes no more than the array holds, with a NUL at the end.
    while unsafe fgets(&line, Int32(line.count), mounts) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      // "36 35 98:0 /root /mount/point ..."
      let words = text.split(separator: " ", maxSplits: 3)
      guard words.count > 2, words[0] == mount else { continue }
      let numbers = words[2].split(separator: ":").compactMap { UInt64($0) }
      return numbers.count == 2 ? (numbers[0], numbers[1]) : nil
    }
    return nil
  }

  private static func hex(_ number: UInt64) -> String {
    let digits = String(number, radix: 16)
    return digits.count < 2 ? "0" + digits : digits
  }
}
