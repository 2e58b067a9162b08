import Glibc

/// A fresh directory that only this user may enter, for one server's socket and output, or for files of a test.
package final class PrivateDirectory: Sendable {
  package let path: String

  package init() throws {
    // Not below TMPDIR's every possible value: a Unix socket's path has at most 107 bytes.
    var template = Array("/tmp/lacuna-nbd-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemError(call: "mkdtemp", code: errno) }
    path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  package func file(_ name: String) -> String { "\(path)/\(name)" }

  /// The text of a file in the directory; empty where there is none.
  package func text(of name: String) -> String {
    guard let file = fopen(file(name), "re") else { return "" }
    defer { fclose(file) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = fread(&piece, 1, piece.count, file)
      if count == 0 { break }
      bytes += piece[..<count]
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Hands a fresh directory to `body`, and removes it afterwards.
  package static func run<Result>(_ body: (PrivateDirectory) throws -> Result) throws -> Result {
    let directory = try PrivateDirectory()
    defer { directory.remove() }
    return try body(directory)
  }

  /// Removes the directory and the plain files in it.
  package func remove() {
    guard let directory = opendir(path) else { return }
    var names: [String] = []
    while let entry = readdir(directory) {
      let name = withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      names.append(name)
    }
    closedir(directory)
    for name in names where name != "." && name != ".." { unlink(file(name)) }
    rmdir(path)
  }
}
