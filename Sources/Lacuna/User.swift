internal import Glibc

/// Users by their numbers.
package enum User {
  /// What a message calls a user: by name, where there is one, and by number.
  package static func text(_ user: UInt32) -> String {
    name(of: user).map { "the user '\($0)' (uid \(user))" } ?? "the user with the uid \(user)"
  }

  /// Whether the number says who it is. In a user namespace, one number stands for all users that have none there
  /// (user_namespaces(7)); it is believed to be a user only where all have one.
  static func isCertain(_ user: uid_t) -> Bool { user != unknown || mapsAllUsers }

  /// What stands for users without a number.
  private static let unknown: uid_t =
    SmallFile.text(of: "/proc/sys/kernel/overflowuid").split(whereSeparator: \.isWhitespace).first.flatMap { uid_t($0) }
    ?? 65_534

  private static let mapsAllUsers =
    SmallFile.text(of: "/proc/self/uid_map").split(whereSeparator: \.isWhitespace) == ["0", "0", "4294967295"]

  private static func name(of user: uid_t) -> String? {
    var entry = unsafe passwd()
    var found: UnsafeMutablePointer<passwd>?
    var buffer = [CChar](repeating: 0, count: 16_384)
    // Safe: the call fills in what it is given, whose sizes it knows; the name is in the buffer, and ends in a NUL.
    guard unsafe getpwuid_r(user, &entry, &buffer, buffer.count, &found) == 0, unsafe found != nil else { return nil }
    return unsafe String(cString: entry.pw_name)
  }
}
