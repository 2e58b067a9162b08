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
    case serving(Store, ControlServer?)
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
  func options() throws(PluginError) -> (StoreOptions, ControlChoice) {
    try phase.withLock { phase throws(PluginError) in
      guard case .configuring(let configuration) = phase else { throw Self.wrongPhase }
      return try configuration.complete()
    }
  }

  /// Opens the store that the command line asks for, and the socket to manage it by.
  func openStore() throws(PluginError) {
    var (options, choice) = try options()
    options.reportsDamage = { warn($0) }
    options.endServing = { () throws(LacunaError) in try Ending.begin() }
    options.reportsDetail = { debug($0) }
    options.reportsLackOfRoom = { warn($0) }
    do throws(LacunaError) {
      let store = try Store(options)
      do throws(LacunaError) {
        let control = try Self.openControl(choice, options)
        for warning in store.warnings { warn(warning) }
        phase.withLock { $0 = .serving(store, control) }
      } catch {
        // What is wrong is known already.
        try? store.close()
        throw error
      }
    } catch {
      throw PluginError(error)
    }
  }

  /// Listens, and answers nobody yet.
  private static func openControl(
    _ choice: ControlChoice, _ options: StoreOptions
  ) throws(LacunaError) -> ControlServer? {
    switch choice {
    case .off: return nil
    case .at(let path): return try ControlServer(path: path)
    case .besideStore:
      guard let store = options.path else { return nil }
      let path = ControlSocket.path(forStore: store)
      do throws(LacunaError) {
        try StorePlace.makeFolder(forStore: store)
        return try ControlServer(path: path)
      } catch {
        // Such as a folder that is not ours, or another server of the same store, which both only read.
        warn("\(error.description); the store is served, and cannot be managed meanwhile")
        return nil
      }
    }
  }

  /// The open store.
  func store() throws(PluginError) -> Store {
    try phase.withLock { phase throws(PluginError) in
      guard case .serving(let store, _) = phase else { throw Self.wrongPhase }
      return store
    }
  }

  /// Starts what the store does beside serving.
  func startBackgroundWork() throws(PluginError) {
    let (store, control) = try phase.withLock { phase throws(PluginError) in
      guard case .serving(let store, let control) = phase else { throw Self.wrongPhase }
      return (store, control)
    }
    do throws(LacunaError) {
      try store.startBackgroundWork()
      try control?.start(store)
    } catch {
      throw PluginError(error)
    }
  }

  /// Lets go of the store.
  func close() throws(PluginError) {
    let serving = phase.withLock { phase -> (Store, ControlServer?)? in
      defer { phase = .closed }
      return if case .serving(let store, let control) = phase { (store, control) } else { nil }
    }
    serving?.1?.stop()
    do { try serving?.0.close() } catch { throw PluginError(error) }
  }

  /// nbdkit never calls in this order; said rather than trapped on.
  private static var wrongPhase: PluginError { PluginError("nbdkit made a call that does not fit what came before") }
}
