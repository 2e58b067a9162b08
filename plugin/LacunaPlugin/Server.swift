import Lacuna
import Synchronization

/// The one store that this process serves, from the command line to the end.
///
/// nbdkit is single-threaded until `get_ready` has returned; from then on any thread may ask for the store. The lock
/// guards the phase alone and is never held on the way of a read or a write.
final class Server: Sendable {
  static let shared = Server()

  private enum Phase {
    case configuring(Configuration)
    case serving(Store)
    case closed
  }

  private let phase = Mutex(Phase.configuring(Configuration()))

  /// Takes in one parameter of the command line.
  func configure(_ name: String, to value: String) throws(PluginError) {
    try phase.withLock { phase throws(PluginError) in
      guard case .configuring(var configuration) = phase else { throw Self.wrongPhase }
      try configuration.set(name, to: value)
      phase = .configuring(configuration)
    }
  }

  /// What the command line asks for.
  ///
  /// - Throws: `PluginError` where it is not complete.
  func options() throws(PluginError) -> StoreOptions {
    try phase.withLock { phase throws(PluginError) in
      guard case .configuring(let configuration) = phase else { throw Self.wrongPhase }
      return try configuration.complete()
    }
  }

  /// Opens the store that the command line asks for.
  func openStore() throws(PluginError) {
    let options = try options()
    let store: Store
    do { store = try Store(options) } catch { throw PluginError(error) }
    for warning in store.warnings { warn(warning) }
    phase.withLock { $0 = .serving(store) }
  }

  /// The open store.
  func store() throws(PluginError) -> Store {
    try phase.withLock { phase throws(PluginError) in
      guard case .serving(let store) = phase else { throw Self.wrongPhase }
      return store
    }
  }

  /// Starts what the store does beside serving.
  func startBackgroundWork() throws(PluginError) {
    let store = try store()
    do { try store.startBackgroundWork() } catch { throw PluginError(error) }
  }

  /// Lets go of the store.
  func close() throws(PluginError) {
    let store = phase.withLock { phase -> Store? in
      defer { phase = .closed }
      return if case .serving(let store) = phase { store } else { nil }
    }
    do { try store?.close() } catch { throw PluginError(error) }
  }

  /// nbdkit never calls in this order; said rather than trapped on.
  private static var wrongPhase: PluginError { PluginError("nbdkit made a call that does not fit what came before") }
}
