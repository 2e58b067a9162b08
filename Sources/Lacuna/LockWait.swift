internal import Glibc

/// Waits for a store that another process has locked: some seconds where that may be over soon, since that process only looks at it.
///
/// Who holds the lock is looked for once. All times are by a clock that only goes forward.
package struct LockWait: Sendable {
  private let path: String
  private let file: FoundFile?
  /// Who holds the lock, as far as that can be seen.
  package let holder: LockHolder?
  private let deadline: Instant

  /// The longest times, in milliseconds: for another run of this program, which ends by itself; for a process that only reads; for one
  /// that is not found, which may just have ended, or be another user's; and for a server, which stays.
  private static let (program, reader, nobody, server): (UInt32, UInt32, UInt32, UInt32) = (10_000, 5_000, 1_000, 0)
  private static let pauseMicroseconds: useconds_t = 20_000

  /// Begins to wait for the store at `path`.
  package init(forStore path: String) {
    self.path = path
    file = FoundFile(at: path)
    holder = file.flatMap { LockHolder.find(of: $0) }
    let milliseconds: UInt32
    if let holder {
      milliseconds = holder.isSameProgram ? Self.program : holder.isExclusive ? Self.server : Self.reader
    } else {
      milliseconds = file?.mayBeLockedByOthers == true ? Self.reader : Self.nobody
    }
    deadline = Instant(millisecondsFromNow: milliseconds)
  }

  /// Waits a moment; false where it has been long enough.
  package func pause() -> Bool {
    guard deadline.millisecondsLeft > 0 else { return false }
    usleep(Self.pauseMicroseconds)
    return true
  }

  /// That the store is in use; by whom, and how strangers are kept from that.
  package var failure: LacunaError {
    guard let holder else {
      if file?.isBlockDevice == true {
        return LacunaError(.inUse, "\(path) is in use: it is mounted, or held by LVM, RAID, swap or a program")
      }
      let others = file?.mayBeLockedByOthers == true ? "; \(Self.whoMay(path))" : ""
      return LacunaError(.inUse, "\(path) is in use" + others)
    }
    guard let file, let user = holder.user, !Believed(owner: file.owner).includes(user) else {
      return LacunaError(.inUse, "\(path) is in use by process \(holder.text)")
    }
    let text = "\(path) is in use by process \(holder.text) of \(User.text(user))"
    return LacunaError(.inUse, holder.isExclusive || !file.mayBeLockedByOthers ? text : "\(text); \(Self.whoMay(path))")
  }

  private static func whoMay(_ path: String) -> String {
    "every user with the right to read it can keep it locked, and other users have that right; 'chmod go-r \(path)' ends that, once they have closed it"
  }
}

extension FoundFile {
  /// Whether users besides its owner may read it, and so hold a lock on it.
  fileprivate var mayBeLockedByOthers: Bool { mode & 0o044 != 0 }
}
