internal import Bytes
internal import SystemPackage

/// Answers on a Unix socket what ``StoreMethod``s ask, while the process serves a store.
///
/// It serves the user whose process it is, root, and the owner of the store, and nobody else, whoever may connect. It has a thread that
/// waits for clients, one that tells clients which wait for long that it is at it, and one for each client that it may have at once. None of
/// them exists before `start`, so that the process may fork until then; all of them do from then on, so that it can be asked and ended
/// where the clients of its disks have used up all threads that the process may have. No thread holds a lock of the store while it
/// waits for a client.
package final class ControlServer: Sendable {
  private struct State {
    var connections: [ObjectIdentifier: ControlConnection] = [:]
    /// Those of them that no thread has taken up yet, the first one first.
    var waiting: [ControlConnection] = []
    /// How many threads of the server's own there are.
    var threadCount = 0
    var isStopping = false
  }

  /// Where it listens.
  package let path: String
  private let limits: ControlLimits
  private let listener: SocketListener
  private let reports: @Sendable (String) -> Void
  private let refusals = RefusalLog()
  private let state = Monitor(rank: .controlServer, State())

  /// Listens at `path`, and answers nobody yet. A socket that a dead server left there is replaced.
  ///
  /// - Parameters:
  ///   - store: what is to be served, whose owner is one to serve; nil where that is not known yet.
  ///   - reports: hears, in one line, who was refused. On any thread.
  /// - Throws: `.inUse` where another server listens there; `.untrusted` where somebody else's socket is there; `.nameTaken` where
  ///   something else is; `.deviceFailed` where the system refuses.
  package init(
    path: String, for store: Store? = nil, limits: ControlLimits = ControlLimits(),
    reports: @escaping @Sendable (String) -> Void = { _ in }
  ) throws(LacunaError) {
    self.path = path
    self.limits = limits
    self.reports = reports
    listener = try SocketListener(
      at: path, for: SocketListener.Purpose(name: "control socket", option: "control="),
      backlog: Int32(limits.connectionCountMax), believing: Believed(owner: store?.owner))
  }

  /// Begins to answer. Not before a fork, and once at most.
  package func start(_ store: Store) throws(LacunaError) {
    store.noteServing()
    do {
      // Clients see the process that listened last, and not the one from before a fork, which has ended.
      try ControlCalls.listen(listener.socket, backlog: Int32(limits.connectionCountMax))
      try startThread { self.acceptClients(store) }
      try startThread { self.tellClientsThatWait() }
      for _ in 0..<limits.connectionCountMax { try startThread { self.serveClients() } }
    } catch {
      state.change { $0.isStopping = true }
      throw LacunaError(
        .deviceFailed(errno: error.rawValue), "no thread for the control socket could be made: \(error)")
    }
  }

  private func startThread(_ body: @escaping @Sendable () -> Void) throws(Errno) {
    state.change { $0.threadCount += 1 }
    do throws(Errno) {
      try ControlCalls.startThread(stackByteCount: limits.stackByteCount) {
        body()
        self.state.change { $0.threadCount -= 1 }
      }
    } catch {
      state.change { $0.threadCount -= 1 }
      throw error
    }
  }

  /// Takes the socket away, ends all connections, and waits until their calls have come to their ends.
  package func stop() {
    let connections = state.change { state in
      state.isStopping = true
      return Array(state.connections.values)
    }
    listener.remove()
    for connection in connections { connection.end() }
    state.wait { $0.connections.isEmpty && $0.threadCount == 0 ? () : nil }
  }

  /// Tells clients whose calls take long that they are being done.
  private func tellClientsThatWait() {
    while true {
      state.wait { !$0.connections.isEmpty || $0.isStopping ? () : nil }
      // Often enough that none hears nothing for much longer than it may.
      let isOver: Void? = state.wait(milliseconds: max(limits.aliveMilliseconds / 5, 10)) { $0.isStopping ? () : nil }
      guard isOver == nil else { return }
      let connections = state.wait { (state: inout State) -> [ControlConnection]? in Array(state.connections.values) }
      for connection in connections { connection.sayAlive() }
    }
  }

  private func acceptClients(_ store: Store) {
    while !state.wait(until: { $0.isStopping }) {
      do throws(Errno) {
        guard try ControlCalls.wait(listener.socket, for: .reading, until: nil) else { continue }
        let socket = try ControlCalls.accept(listener.socket)
        let peer = try Peer(of: socket)
        // Looked at each time, since a file may be given away.
        guard Believed(owner: store.owner).includes(peer.user) else {
          if let line = refusals.line(about: peer, path) { reports(line) }
          continue
        }
        serve(socket, store)
      } catch {
        // A client that connected and hung up again; or no descriptors or memory just now, which may pass.
        if error != .wouldBlock, error != .connectionAbort { pause(milliseconds: 100) }
      }
    }
  }

  /// Waits, unless the server stops.
  private func pause(milliseconds: UInt32) {
    let _: Void? = state.wait(milliseconds: milliseconds) { $0.isStopping ? () : nil }
  }

  private func serve(_ socket: Descriptor, _ store: Store) {
    guard makeRoom() else {
      let text = "\(limits.connectionCountMax) clients are served at once, and none of them is idle; try again"
      let error = RPCError(LacunaError(.busy, text), code: RPCError.Code.refused)
      try? LineChannel(socket).write(ControlAnswer.error(error, to: .null), milliseconds: 100)
      return
    }
    let connection = ControlConnection(socket, store, limits)
    state.change { state in
      guard !state.isStopping else { return }
      state.connections[ObjectIdentifier(connection)] = connection
      state.waiting.append(connection)
    }
  }

  /// Serves one client after the other. There are as many threads as clients, so that none waits for long.
  private func serveClients() {
    while let connection = nextClient() {
      connection.serve()
      forget(connection)
    }
  }

  /// The client that has waited for longest; nil where the server stops.
  private func nextClient() -> ControlConnection? {
    state.wait { state -> ControlConnection?? in
      if state.isStopping {
        // Their connections have been ended.
        for connection in state.waiting { state.connections[ObjectIdentifier(connection)] = nil }
        state.waiting = []
        return .some(nil)
      }
      return state.waiting.isEmpty ? nil : .some(state.waiting.removeFirst())
    }
  }

  private func forget(_ connection: ControlConnection) {
    _ = state.change { $0.connections.removeValue(forKey: ObjectIdentifier(connection)) }
  }

  /// Finds room for one more client; the one that has been idle for longest goes for it.
  private func makeRoom() -> Bool {
    let isFull = state.wait { (state: inout State) -> Bool? in state.connections.count >= limits.connectionCountMax }
    guard isFull else { return true }
    let idle = state.wait { (state: inout State) -> ControlConnection?? in
      .some(
        state.connections.values.compactMap { connection in connection.idleTime.map { (connection, $0) } }
          .min { $0.1 < $1.1 }?.0)
    }
    guard let idle else { return false }
    idle.end()
    let hasRoom: Bool? = state.wait(milliseconds: 1000) { state in
      state.connections.count < limits.connectionCountMax || state.isStopping ? true : nil
    }
    return hasRoom ?? false
  }
}
