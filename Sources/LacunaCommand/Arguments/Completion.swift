internal import ArgumentParser
internal import Glibc
internal import Lacuna

extension CompletionKind {
  /// The names of volumes and snapshots in the store that the command line names so far.
  ///
  /// A shell takes what is printed here for its own: bash expands it, so that `$(...)` in a name would be run. Stores and servers may
  /// be others', with any names in them. So only names are offered that new volumes could have, which no shell sees anything in.
  static var volumeNames: CompletionKind {
    .custom { words, _, prefix in
      // lacuna VERB STORE ...: an option in between hides the store, and nothing is offered.
      guard let verb = words.firstIndex(where: isVerb), verb + 1 < words.count, words[verb + 1] != prefix else {
        return []
      }
      let store = words[verb + 1]
      guard StoreFile.exists(store) else { return [] }
      endSoon()
      let names = try? StoreAccess.completing(store) { try $0.call(ListVolumes(prefix: prefix, limit: 1000)).volumes }
      return (names ?? []).map(\.name).filter(VolumeInfo.canBeNew)
    }
  }

  /// Ends this process in a second, without a word: somebody waits at a prompt, and a store may be large, locked, on a disk that hangs,
  /// or have a server that does not answer. It only reads, so that nothing is left half done.
  private static func endSoon() {
    signal(SIGALRM) { _ in _exit(0) }
    var alarms = sigset_t()
    // Safe: the calls fill in and read a set that outlives them.
    unsafe sigemptyset(&alarms)
    unsafe sigaddset(&alarms, SIGALRM)
    unsafe sigprocmask(SIG_UNBLOCK, &alarms, nil)
    alarm(1)
  }

  @Sendable private static func isVerb(_ word: String) -> Bool {
    LacunaCommand.configuration.subcommands.contains { $0._commandName == word }
  }
}

extension StoreAccess {
  /// Hands a store that is only read to `body`.
  fileprivate static func completing<Result>(
    _ path: String, _ body: (StoreAccess) throws -> Result
  ) throws -> Result {
    let access = try StoreAccess(completing: path)
    defer { try? access.close() }
    return try body(access)
  }
}
