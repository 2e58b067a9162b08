import Lacuna
import Logging
import Synchronization

/// The one store that this process serves, from the command line to the end.
///
/// nbdkit is single-threaded until `get_ready` has returned; from then on any thread may ask for the store. The lock
/// guards the phase alone and is never held on the way of a read or a write.
final class Server: Sendable {
  static let shared = Server()

  private enum Phase {
    case configuring(Configuration)
    case serving(Served, ControlServer?)
    case closed
  }

  /// What clients are served.
  struct Served: Sendable {
    let store: Store
    let permissions: ExportPermissions
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

  /// Looks whether the command line is complete.
  func checkConfiguration() throws(PluginError) { _ = try configuration().complete() }

  private func configuration() throws(PluginError) -> Configuration {
    try phase.withLock { phase throws(PluginError) in
      guard case .configuring(let configuration) = phase else { throw Self.wrongPhase }
      return configuration
    }
  }

  /// Opens the store that the command line asks for, and the socket to manage it by.
  func openStore() throws(PluginError) {
    let configuration = try configuration()
    var (options, choice) = try configuration.complete()
    ClientLimit.prepare(for: configuration.clientCountMax)
    options.logger = Logger(label: "lacuna", factory: { _ in NBDKitLog() })
    options.endServing = { () throws(LacunaError) in try Ending.begin() }
    do throws(LacunaError) {
      let store = try Store(options)
      do throws(LacunaError) {
        let control = try Self.openControl(choice, options, store)
        for warning in store.warnings { warn(warning) }
        let served = Served(store: store, permissions: configuration.permissions)
        phase.withLock { $0 = .serving(served, control) }
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
    _ choice: ControlChoice, _ options: StoreOptions, _ store: Store
  ) throws(LacunaError) -> ControlServer? {
    func listen(at path: String) throws(LacunaError) -> ControlServer {
      try ControlServer(path: path, for: store) { warn($0) }
    }
    switch choice {
    case .off: return nil
    case .at(let path): return try listen(at: path)
    case .besideStore:
      guard let path = options.path else { return nil }
      do throws(LacunaError) {
        try StorePlace.makeFolder(forStore: path)
        return try listen(at: ControlSocket.path(forStore: path))
      } catch {
        // What somebody put there would be asked in this server's place.
        if [.untrusted, .nameTaken].contains(error.code) { throw error }
        // Such as a folder that is not ours, or another server of the same store, which both only read.
        warn("\(error.description); the store is served, and cannot be managed meanwhile")
        return nil
      }
    }
  }

  /// The open store, and what its clients may do.
  func served() throws(PluginError) -> Served {
    try phase.withLock { phase throws(PluginError) in
      guard case .serving(let served, _) = phase else { throw Self.wrongPhase }
      return served
    }
  }

  /// Starts what the store does beside serving.
  func startBackgroundWork() throws(PluginError) {
    let (store, control) = try phase.withLock { phase throws(PluginError) in
      guard case .serving(let served, let control) = phase else { throw Self.wrongPhase }
      return (served.store, control)
    }
    do throws(LacunaError) {
      try store.startBackgroundWork()
      try Ending.prepare()
      try control?.start(store)
    } catch {
      throw PluginError(error)
    }
  }

  /// Lets go of the store.
  func close() throws(PluginError) {
    let serving = phase.withLock { phase -> (Store, ControlServer?)? in
      defer { phase = .closed }
      return if case .serving(let served, let control) = phase { (served.store, control) } else { nil }
    }
    serving?.1?.stop()
    do { try serving?.0.close() } catch { throw PluginError(error) }
  }

  /// nbdkit never calls in this order; said rather than trapped on.
  private static var wrongPhase: PluginError { PluginError("nbdkit made a call that does not fit what came before") }
}
