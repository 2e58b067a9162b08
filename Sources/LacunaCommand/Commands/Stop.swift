internal import ArgumentParser
internal import Glibc
internal import Lacuna

struct Stop: Verb {
  static let configuration = CommandConfiguration(
    abstract: "End the server of a store.",
    usage: "lacuna stop STORE [options]",
    discussion: """
      What was acknowledged is made durable, requests that have arrived are done and answered, and clients are hung up on, also
      those that ask for nothing. It ends servers that lacuna serve, scripts/serve or nbdkit started; what systemd started, systemctl
      ends. It comes back when the server has ended.

      Example:
        lacuna stop s.lacuna
      """.unwrapped)

  @OptionGroup var target: StoreArgument

  @OptionGroup var common: CommonOptions

  func run() throws {
    // Looked for first: a server that only reads does not keep others from opening the store.
    let store = try StoreAccess(
      target.store, for: .reading, control: common.control ?? socketOfServer(), progress: common.progress,
      logger: common.logger)
    guard !store.isFree else {
      try store.close()
      throw Failure("\(target.store) is not served")
    }
    let result = try end(store)
    if let failure = result.flushFailure {
      throw Failure("stopped the server; but what was acknowledged last could not be made durable: \(failure)")
    }
    try show(["pid": result.pid]) { _ in "Stopped the server of \(target.store.visible)\n" }
  }

  /// Where the store's server listens; nil where nobody does.
  private func socketOfServer() throws -> String? {
    guard let store = FoundFile(at: target.store) else { return nil }
    let socket = ControlSocket.path(for: store)
    do throws(LacunaError) {
      _ = try ControlClient(path: socket, store: store)
      return socket
    } catch {
      guard error.code == .unreachable else { throw error }
      return nil
    }
  }

  /// Ends the server, and returns when it has ended.
  private func end(_ store: StoreAccess) throws -> StopServing.Result {
    // For one whose answer is lost when it ends.
    let server = try store.call(GetStoreInfo()).pid.map(ProcessWatch.init)
    do throws(LacunaError) {
      let result = try store.call(StopServing())
      try ProcessWatch(result.pid).waitForEnd()
      return result
    } catch {
      guard error.code == .unreachable, let server else { throw error.explained(store: target.store) }
      try server.waitForEnd()
      return StopServing.Result(pid: server.pid, flushFailure: nil)
    }
  }
}
