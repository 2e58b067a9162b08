internal import Bytes

/// How many clients may be connected at once, and which one is disconnected where one more comes: a client that does not finish its handshake.
///
/// A client has its place from before its handshake until its connection is closed. nbdkit has no time limit for handshakes, so that
/// clients which only connect could take all places, and keep out those who may use the disks.
package final class ClientPlaces: Sendable {
  private struct Handshake {
    let beginning: Instant
    var isEnding = false
  }

  private struct State {
    var countMax: Int
    var count = 0
    /// Clients in their handshake, each by the thread that serves it.
    var handshakes: [Int32: Handshake] = [:]
  }

  private let state: Monitor<State>
  private let patienceMilliseconds: UInt32
  private let hangUp: @Sendable (_ thread: Int32) -> Bool

  /// How long somebody waits for the place of a client that was hung up on.
  private static let millisecondsForRoom: UInt32 = 1000

  /// Makes places for `countMax` clients.
  ///
  /// - Parameters:
  ///   - patienceMilliseconds: how long a handshake may take while others wait.
  ///   - hangUp: ends the connection that a thread serves; false where that is not possible.
  package init(
    countMax: Int, patienceMilliseconds: UInt32 = 5000,
    hangUp: @escaping @Sendable (_ thread: Int32) -> Bool = AcceptedSockets.shutDown(awaitedBy:)
  ) {
    state = Monitor(rank: .clientPlaces, State(countMax: countMax))
    self.patienceMilliseconds = patienceMilliseconds
    self.hangUp = hangUp
  }

  /// How many there are places for.
  package var countMax: Int {
    get { state.change { $0.countMax } }
    set { state.change { $0.countMax = newValue } }
  }

  /// Gives a client that has just connected a place.
  ///
  /// - Parameter thread: the thread that serves it, from now until ``leave(_:)``.
  /// - Returns: whether there is one.
  package func enter(_ thread: Int32) -> Bool {
    if takePlace(thread) { return true }
    guard let slowest = endSlowestHandshake() else { return false }
    guard hangUp(slowest) else {
      state.change { $0.handshakes[slowest]?.isEnding = false }
      return false
    }
    return state.wait(milliseconds: Self.millisecondsForRoom) { Self.takePlace(thread, &$0) ? true : nil } ?? false
  }

  /// Notes that a client has finished its handshake.
  package func noteOpened(_ thread: Int32) {
    _ = state.change { $0.handshakes.removeValue(forKey: thread) }
  }

  /// Frees the place of a client that ``enter(_:)`` gave one.
  package func leave(_ thread: Int32) {
    state.change {
      $0.handshakes.removeValue(forKey: thread)
      $0.count -= 1
    }
  }

  private func takePlace(_ thread: Int32) -> Bool { state.change { Self.takePlace(thread, &$0) } }

  private static func takePlace(_ thread: Int32, _ state: inout State) -> Bool {
    guard state.count < state.countMax else { return false }
    state.count += 1
    state.handshakes[thread] = Handshake(beginning: .now)
    return true
  }

  /// Chooses the client to disconnect, once.
  private func endSlowestHandshake() -> Int32? {
    state.change { state in
      let slowest = state.handshakes.filter { !$0.value.isEnding }.min { $0.value.beginning < $1.value.beginning }
      guard let slowest, slowest.value.beginning.millisecondsSince >= patienceMilliseconds else { return nil }
      state.handshakes[slowest.key]?.isEnding = true
      return slowest.key
    }
  }
}
