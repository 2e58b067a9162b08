// Paths as the kernel reads them: by bytes. For Swift, a slash with a mark above it is a character of its own, and no slash.
extension String {
  /// Whether it is a path from the root on.
  package var isAbsolutePath: Bool { utf8.first == UInt8(ascii: "/") }

  /// What stands between its slashes, empty parts left out.
  package var pathParts: [String] { unicodeScalars.split(separator: "/").map { String($0) } }
}
