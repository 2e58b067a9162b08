internal import Bytes
internal import Glibc

/// What a server says of those that it hangs up on, so that they cannot fill its log: one line a minute for each user, and some lines
/// a minute for all.
final class RefusalLog: Sendable {
  private struct State {
    /// The users that were named in this minute.
    var named: Set<uid_t> = []
    var minute: Instant = .now
    /// How many were hung up on without a line.
    var silentCount = 0
  }

  private let state = Locked(rank: .storeTable, State())
  private let intervalMilliseconds: UInt32
  private let lineCountMax: Int

  init(intervalMilliseconds: UInt32 = 60_000, lineCountMax: Int = 5) {
    self.intervalMilliseconds = intervalMilliseconds
    self.lineCountMax = lineCountMax
  }

  /// What to say of one that was hung up on now; nil where enough was said.
  func line(about peer: Peer, _ path: String) -> String? {
    state.withLock { state in
      if state.minute.millisecondsSince >= intervalMilliseconds { (state.named, state.minute) = ([], .now) }
      guard state.named.count < lineCountMax, state.named.insert(peer.user).inserted else {
        state.silentCount += 1
        return nil
      }
      defer { state.silentCount = 0 }
      // No name is looked up: that can take as long as a network does, and clients wait for this thread.
      let process = peer.process > 0 ? ", process \(peer.process)" : ""
      let others = state.silentCount > 0 ? "; \(state.silentCount) more were hung up on before" : ""
      return
        "hung up on the user with the uid \(peer.user)\(process) on the control socket \(path), which is for this server's own user, "
        + "root and the owner of the store\(others)"
    }
  }
}
