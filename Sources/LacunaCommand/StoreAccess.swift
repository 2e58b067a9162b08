internal import Glibc
internal import Lacuna
internal import Logging

/// What a verb wants of a store.
enum StorePurpose {
  /// To look at it: a free store is opened for reading only.
  case reading
  /// To see the bytes that it has, without what its journal says.
  case inspecting
  /// To change it.
  case writing
  /// To change it, also where its newest superblock may be lost.
  case recovering
}

/// A store to ask: opened by this process where nobody else has it, else by way of the process that serves it.
///
/// Both answer the same calls in the same way, so that no verb knows which of the two it talks to.
struct StoreAccess {
  private enum Way {
    case opened(Store)
    case served(ControlClient)
  }

  private let way: Way
  private let progress: ProgressStyle

  /// - Parameters:
  ///   - path: the store.
  ///   - control: the control socket of the process that serves it; nil to look whether one does.
  ///   - logger: gets the log of the store where this process opens it; a server has a log of its own.
  init(
    _ path: String, for purpose: StorePurpose, control: String?, progress: ProgressStyle, logger: Logger
  ) throws {
    self.progress = progress
    let file = FoundFile(at: path)
    if let control {
      way = .served(try Self.connect(control, store: path, file))
      return
    }
    var wait: LockWait?
    while true {
      do throws(LacunaError) {
        way = .opened(try Self.open(path, for: purpose, logger))
        return
      } catch {
        guard error.code == .inUse else { throw error.whenOpening(path) }
        let reason: LacunaError
        do throws(LacunaError) {
          way = .served(try Self.findServer(of: path, file))
          return
        } catch {
          guard error.code == .unreachable else { throw error }
          reason = error
        }
        // Another run of this program, which has no socket, ends by itself; a server may just have gone, or be about to come.
        let current = wait ?? LockWait(forStore: path)
        wait = current
        guard current.pause() else { throw Self.failure(current, reason) }
      }
    }
  }

  /// A store whose names are to complete a command line: tried once, and asked for only of a server of this user's own, or of root's.
  init(completing path: String) throws(LacunaError) {
    progress = .none
    do throws(LacunaError) {
      way = .opened(try Self.open(path, for: .reading, nil))
    } catch {
      guard error.code == .inUse else { throw error }
      way = .served(try ControlClient(ownServerAt: ControlSocket.path(forStore: path)))
    }
  }

  /// What the user should know about how the store was found; a server has told its own user.
  var warnings: [String] {
    switch way {
    case .opened(let store): store.warnings
    case .served: []
    }
  }

  /// Makes one call, and shows its progress.
  func call<Method: StoreMethod>(_ method: Method) throws(LacunaError) -> Method.Result {
    var display = ProgressDisplay(progress)
    var last: WorkDone?
    defer { display.finish(last) }
    let report = { (progress: Progress) in
      let work = WorkDone(
        phase: progress.stage, done: progress.done, total: progress.total, unit: progress.unit.rawValue)
      display.show(work)
      last = work
    }
    switch way {
    case .opened(let store): return try store.call(method, progress: report)
    case .served(let client): return try client.call(method, progress: report)
    }
  }

  /// Whether no other process has the store open, so that nothing goes on in the background when this one ends.
  var isFree: Bool {
    if case .opened = way { true } else { false }
  }

  /// Lets go of it. No call may follow.
  func close() throws(LacunaError) {
    switch way {
    case .opened(let store):
      try store.giveBackSpace()
      try store.close()
    case .served: break  // It hangs up when nobody has it any more.
    }
  }

  private static func open(_ path: String, for purpose: StorePurpose, _ logger: Logger?) throws(LacunaError) -> Store {
    var options = StoreOptions()
    if let logger { options.logger = logger }
    options.path = StoreFile.absolute(path)
    options.waitsForLock = false
    options.createsMissing = false
    options.makesVolume = false
    let changes = purpose == .writing || purpose == .recovering
    options.opensReadOnly = !changes
    options.acceptsOlderSuperblock = purpose == .recovering
    options.mergesJournal = purpose != .inspecting
    let store = try Store(options)
    if let refusal = store.refusalOfWriting, changes {
      try? store.close()
      throw refusal
    }
    if changes { try store.startBackgroundWork() }
    return store
  }

  private static func connect(_ socket: String, store: String, _ file: FoundFile?) throws -> ControlClient {
    do throws(LacunaError) {
      return try ControlClient(path: socket, store: file)
    } catch {
      guard error.code == .unreachable else { throw error }
      throw LacunaError(
        error.code,
        "\(error.description); --control takes the control socket of the process that serves \(store), "
          + "and is not needed for a store that is not served")
    }
  }

  private static func findServer(of path: String, _ file: FoundFile?) throws(LacunaError) -> ControlClient {
    try ControlClient(path: file.map(ControlSocket.path(for:)) ?? ControlSocket.path(forStore: path), store: file)
  }

  /// That a store stayed in use, and its server is not to be had.
  private static func failure(_ wait: LockWait, _ reason: LacunaError) -> LacunaError {
    let advice =
      wait.holder.map { $0.isSameProgram } == true
      ? ""
      : "; give its server's socket with --control (it may have control=off or another path, or the store was moved while it was served), "
        + "or end that process"
    return LacunaError(.inUse, "\(wait.failure.description), and \(reason.description)\(advice)")
  }
}

extension LacunaError {
  /// The error of an opening, with what to do next.
  fileprivate func whenOpening(_ path: String) -> LacunaError {
    switch code {
    case .deviceFailed(errno: ENOENT):
      LacunaError(code, "there is no store \(path); 'lacuna create \(path.shellQuoted) --size SIZE' makes one")
    case .deviceFailed(errno: EACCES), .deviceFailed(errno: EPERM):
      LacunaError(code, "\(description); run lacuna as a user who may open it")
    case .damaged:
      // No verb can look at it, 'check' neither.
      LacunaError(
        code, "\(description); it cannot be opened, so go back to a copy of it, and keep this one as it is until then")
    default: explained(store: path)
    }
  }
}
