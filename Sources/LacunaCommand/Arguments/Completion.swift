internal import ArgumentParser
internal import Lacuna

extension CompletionKind {
  /// The names of volumes and snapshots in the store that the command line names so far.
  static var volumeNames: CompletionKind {
    .custom { words, _, prefix in
      // lacuna VERB STORE ...: an option in between hides the store, and nothing is offered.
      guard let verb = words.firstIndex(where: isVerb), verb + 1 < words.count, words[verb + 1] != prefix else {
        return []
      }
      let store = words[verb + 1]
      guard StoreFile.exists(store) else { return [] }
      let names = try? StoreAccess.using(store) { try $0.call(ListVolumes(prefix: prefix, limit: 1000)).volumes }
      return names?.map(\.name) ?? []
    }
  }

  @Sendable private static func isVerb(_ word: String) -> Bool {
    LacunaCommand.configuration.subcommands.contains { $0._commandName == word }
  }
}

extension StoreAccess {
  /// Hands a store that is only read to `body`.
  fileprivate static func using<Result>(_ path: String, _ body: (StoreAccess) throws -> Result) throws -> Result {
    let access = try StoreAccess(path, for: .reading, control: nil, progress: .none)
    defer { try? access.close() }
    return try body(access)
  }
}
