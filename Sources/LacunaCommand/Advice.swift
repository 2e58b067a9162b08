internal import Glibc
internal import Lacuna

extension LacunaError {
  /// The same error, with what to do next.
  func explained(store: String) -> LacunaError { explained(advice(store: store)) }

  /// The same error, with `advice` unless it has some already.
  func explained(_ advice: String?) -> LacunaError {
    var error = self
    error.advice = self.advice ?? advice
    return error
  }

  /// What to do next; nil where there is nothing to be said.
  func advice(store path: String) -> String? {
    let store = path.shellQuoted
    return switch code {
    case .noSuchVolume, .deleted: "'lacuna list \(store) --all' shows what there is"
    case .nameTaken: "choose another name"
    case .busy: "disconnect the clients, or do it all the same with --force"
    case .readOnly:
      "a store's file is made writable with chmod, a volume with 'lacuna set \(store) NAME --no-read-only', and a snapshot "
        + "can be cloned"
    case .outOfSpace, .deviceFailed(errno: ENOSPC):
      "make room on the host or below the store's limit, or delete what is not needed any more"
    case .quotaReached: "'lacuna set \(store) NAME --quota' changes the quota"
    case .damaged: "'lacuna check \(store)' shows all that is damaged"
    case .failed: "end the process that has it open, and open it again"
    case .notAStore: "give the path of a file that 'lacuna create' made"
    case .olderSuperblock: "'lacuna recover \(store)' reads all that the older one references, and continues from it"
    case .newerFormat, .readOnlyFormat: "use the version of lacuna that made it, or a newer one"
    case .invalidParameter, .outOfRange, .notSupported, .inUse, .closed, .unreachable, .untrusted, .invalidRequest,
      .deviceFailed,
      .internalFailure:
      nil
    }
  }
}
