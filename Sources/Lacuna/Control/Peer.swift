internal import CLinux
internal import Glibc
internal import SystemPackage

/// Who is at the other end of a Unix socket, as the kernel remembers it (unix(7), SO_PEERCRED): for a server, who connected; for a
/// client, who began to listen.
struct Peer: Sendable, Equatable {
  var user: uid_t
  /// 0 where it is a process that this one cannot name, of another namespace.
  var process: pid_t

  init(user: uid_t, process: pid_t) { (self.user, self.process) = (user, process) }

  /// Looks at a connected socket.
  init(of socket: Descriptor) throws(Errno) {
    var credentials = lacuna_ucred()
    var byteCount = socklen_t(MemoryLayout<lacuna_ucred>.size)
    // Safe: the kernel fills in a structure of this size, which outlives the call.
    let status = unsafe getsockopt(socket.number, SOL_SOCKET, lacuna_SO_PEERCRED, &credentials, &byteCount)
    guard status == 0 else { throw Errno(rawValue: Glibc.errno) }
    (user, process) = (credentials.uid, credentials.pid)
  }

  /// The user and the process, for a message that names users.
  var text: String { process > 0 ? "\(User.text(user)), process \(process)" : User.text(user) }
}

/// Whom a process believes over a control socket: its own user, root, and the owner of the store.
struct Believed: Sendable {
  /// The owner of the store's file; nil where there is none.
  var owner: uid_t?

  func includes(_ user: uid_t) -> Bool {
    guard User.isCertain(user) else { return false }
    return user == geteuid() || user == 0 || user == owner
  }
}
