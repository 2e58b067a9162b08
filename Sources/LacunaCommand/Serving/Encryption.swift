internal import Glibc

/// How the connections of a server are encrypted: TLS, which it requires of all clients, on Unix sockets too.
///
/// All that nbdkit needs is looked at before it starts, since it says of most of it only that TLS does not work, and of some nothing
/// until a client comes.
enum Encryption {
  /// X.509, with the files that nbdkit, libnbd and QEMU name alike. Clients show a certificate of the same authority, unless anyone is
  /// let in.
  case certificates(folder: String, forAnyone: Bool)
  /// A key for each user, as psktool(1) writes it.
  case keys(file: String)

  /// - Parameter path: a folder of certificates, or a file of keys.
  /// - Throws: `Failure` where something is missing, wrong, or open to others.
  init(_ path: String, forAnyone: Bool) throws {
    let path = Process.absolute(path)
    var status = stat()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    guard unsafe stat(path, &status) == 0 else {
      throw Failure(
        "--tls: \(path.visible): \(Process.text(ofError: errno)); it is a folder with \(Self.names.joined(separator: ", ")), "
          + "or a file of keys as psktool(1) makes it")
    }
    if status.st_mode & S_IFMT == S_IFDIR {
      for name in Self.names {
        guard Process.mayRead("\(path)/\(name)") else {
          throw Failure(
            "--tls: \(path.visible)/\(name): \(Process.text(ofError: errno)); the folder needs "
              + "\(Self.names.joined(separator: ", ")), for this user to read")
        }
      }
      try Self.checkPrivate("\(path)/\(Self.secretName)")
      self = .certificates(folder: path, forAnyone: forAnyone)
    } else {
      guard !forAnyone else {
        throw Failure("--anyone goes with a folder of certificates; with a file of keys, each client has a key to show")
      }
      guard Process.mayRead(path) else {
        throw Failure("--tls: \(path.visible): \(Process.text(ofError: errno)); it must be for this user to read")
      }
      try Self.checkPrivate(path)
      try Self.checkKeys(path)
      self = .keys(file: path)
    }
  }

  /// nbdkit's options.
  var options: [String] {
    switch self {
    case .certificates(let folder, let forAnyone):
      ["--tls=require", "--tls-certificates=\(folder)"] + (forAnyone ? [] : ["--tls-verify-peer"])
    case .keys(let file): ["--tls=require", "--tls-psk=\(file)"]
    }
  }

  private static let secretName = "server-key.pem"
  private static let names = ["ca-cert.pem", "server-cert.pem", secretName]

  /// Looks whether others may read a secret, or put one of theirs in its place.
  private static func checkPrivate(_ path: String) throws {
    var status = stat()
    // Safe: as above.
    guard unsafe stat(path, &status) == 0 else {
      throw Failure("--tls: \(path.visible): \(Process.text(ofError: errno))")
    }
    let mode = status.st_mode & 0o777
    guard mode & 0o026 == 0 else {
      throw Failure(
        "--tls: \(path.visible) is a secret that others may read or change (mode \(String(mode, radix: 8))); "
          + "'chmod 600 \(path.shellQuoted)' mends that, and whoever may have read it has it: a new one is better")
    }
    guard status.st_uid == 0 || status.st_uid == geteuid() else {
      throw Failure(
        "--tls: \(path.visible) belongs to user \(status.st_uid), who may change it; it must be yours, or root's")
    }
  }

  /// Looks whether a file has keys, and nothing else: `alice:` and hexadecimal digits.
  private static func checkKeys(_ path: String) throws {
    guard let file = unsafe fopen(path, "re") else {
      throw Failure("--tls: \(path.visible): \(Process.text(ofError: errno))")
    }
    defer { unsafe fclose(file) }
    var line = [CChar](repeating: 0, count: 4096)
    var (number, keyCount) = (0, 0)
    // Safe: it writes no more than the array holds, with a NUL at the end.
    while unsafe fgets(&line, Int32(line.count), file) != nil {
      number += 1
      let text = String(decoding: line.prefix { $0 != 0 && $0 != 10 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
      if text.isEmpty || text.hasPrefix("#") { continue }
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty, !parts[1].isEmpty, parts[1].count % 2 == 0,
        parts[1].allSatisfy({ $0.isASCII && $0.isHexDigit })
      else {
        throw Failure(
          "--tls: line \(number) of \(path.visible) is not a key, as NAME:HEXADECIMAL; 'psktool -u NAME -p FILE' makes one"
        )
      }
      keyCount += 1
    }
    if keyCount == 0 {
      throw Failure("--tls: there is no key in \(path.visible); 'psktool -u NAME -p \(path.shellQuoted)' makes one")
    }
  }
}
