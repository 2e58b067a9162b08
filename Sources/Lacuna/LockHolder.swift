internal import Glibc
internal import SystemPackage

/// Finds out who holds the lock of a file. Best effort: Linux tells it in /proc, of the processes that this one may look at.
enum LockHolder {
  /// Number and name of a process that holds a lock on the file at `path`, such as "4711 (nbdkit)"; nil where none is found.
  static func find(of path: FilePath) -> String? {
    var status = stat()
    guard unsafe stat("\(path)", &status) == 0 else { return nil }
    // "lock:  1: OFDLCK  ADVISORY  WRITE -1 fe:01:1234 0 EOF": device and inode name the file.
    let device = status.st_dev
    let major = (device >> 8) & 0xfff | (device >> 32) & ~0xfff
    let minor = device & 0xff | (device >> 12) & ~0xff
    let file = "\(hex(major)):\(hex(minor)):\(status.st_ino)"
    for process in entries(of: "/proc") where process.allSatisfy(\.isNumber) && process != "\(getpid())" {
      for descriptor in entries(of: "/proc/\(process)/fdinfo") {
        let isHolder = text(of: "/proc/\(process)/fdinfo/\(descriptor)").split(separator: "\n").contains { line in
          line.hasPrefix("lock:") && line.split(whereSeparator: \.isWhitespace).contains { $0 == file }
        }
        if isHolder {
          // Any bytes that a stranger's process chose, and the end of a line.
          let name = text(of: "/proc/\(process)/comm").unicodeScalars.dropLast()
          // It has ended meanwhile, and holds nothing any more.
          if name.isEmpty { break }
          return "\(process) (\(String(name)))"
        }
      }
    }
    return nil
  }

  private static func hex(_ number: UInt) -> String {
    let digits = String(number, radix: 16)
    return digits.count < 2 ? "0" + digits : digits
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

  /// The first bytes of a small file; nothing where it cannot be read.
  private static func text(of path: String) -> String {
    guard let file = try? FileDescriptor.open(FilePath(path), .readOnly, options: [.closeOnExec]) else { return "" }
    defer { try? file.close() }
    let bytes = unsafe [UInt8](unsafeUninitializedCapacity: 8192) { buffer, count in
      // Safe: the buffer is ours for the length of the closure.
      count = unsafe (try? file.read(into: UnsafeMutableRawBufferPointer(buffer))) ?? 0
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}
