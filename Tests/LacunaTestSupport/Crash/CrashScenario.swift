import Bytes

/// A store under a workload, in closures, for a ``CrashHunt``.
///
/// - `Store`: an open store.
/// - `Oracle`: what remembers, over the workload, what the store's client was told, such as a ``DiskLedger``.
/// - `Expectation`: what the oracle says must be there after a crash, such as a ``DiskExpectation``.
package struct CrashScenario<Store, Oracle: Sendable, Expectation: Sendable>: Sendable {
  /// Names the scenario in failures, and in `LACUNA_CRASH`; without slashes.
  package var name: String
  /// The device's length at the start, and the one it may grow to.
  package var byteCount: UInt64
  package var maximumByteCount: UInt64
  /// How many steps the workload has.
  package var stepCount: Int
  /// How many first steps only prepare: the power is not cut before they are over.
  package var setupStepCount = 0
  /// Makes a store on an empty device, durably.
  package var format: @Sendable (CrashDevice) throws -> Void
  /// Opens, and thereby recovers.
  package var open: @Sendable (CrashDevice) throws -> Store
  /// Gives up an open store; must not throw, and should not write.
  package var close: @Sendable (Store) -> Void
  /// Makes the oracle; its clock is the number of device calls so far.
  package var oracle: @Sendable (_ clock: @escaping @Sendable () -> Int) -> Oracle
  /// Does one step, and tells the oracle. It may put a store that it opened anew in place of the old one.
  package var step: @Sendable (inout Store, Oracle, _ index: Int, inout SeededGenerator) throws -> Void
  /// What must be there after a crash right before a device call.
  package var expectation: @Sendable (Oracle, _ crashPoint: Int) -> Expectation
  /// Compares an opened store with what must be there. Throws where it differs, or cannot be read.
  package var check: @Sendable (Store, Expectation) throws -> Void
  /// A number that is another one where the contents are others. With it, a hunt holds a recovery that was cut short and
  /// begun anew against one that was not: both must find the same (rule R7).
  package var fingerprint: (@Sendable (Store) throws -> UInt64)?

  package init(
    name: String, byteCount: UInt64, maximumByteCount: UInt64? = nil, stepCount: Int,
    format: @escaping @Sendable (CrashDevice) throws -> Void,
    open: @escaping @Sendable (CrashDevice) throws -> Store,
    close: @escaping @Sendable (Store) -> Void = { _ in },
    oracle: @escaping @Sendable (_ clock: @escaping @Sendable () -> Int) -> Oracle,
    step: @escaping @Sendable (inout Store, Oracle, _ index: Int, inout SeededGenerator) throws -> Void,
    expectation: @escaping @Sendable (Oracle, _ crashPoint: Int) -> Expectation,
    check: @escaping @Sendable (Store, Expectation) throws -> Void
  ) {
    self.name = name
    self.byteCount = byteCount
    self.maximumByteCount = maximumByteCount ?? byteCount
    self.stepCount = stepCount
    self.format = format
    self.open = open
    self.close = close
    self.oracle = oracle
    self.step = step
    self.expectation = expectation
    self.check = check
  }
}

/// Which picture of which crash: what repeats a failure.
package struct CrashPlace: Sendable, Equatable, CustomStringConvertible {
  /// Whether the workload met the power cut, rather than ran to its end and was cut afterwards.
  package var isLive: Bool
  package var point: Int
  package var picture: Int
  /// Of a crash during the recovery from the first one.
  package var recoveryPoint: Int?
  package var recoveryPicture: Int?

  package init(live: Bool = false, point: Int, picture: Int, recoveryPoint: Int? = nil, recoveryPicture: Int? = nil) {
    isLive = live
    self.point = point
    self.picture = picture
    self.recoveryPoint = recoveryPoint
    self.recoveryPicture = recoveryPicture
  }

  /// Reads what `description` wrote; nil for anything else.
  package init?(_ text: String) {
    var text = Substring(text)
    let live = text.hasPrefix("live")
    if live { text.removeFirst(4) }
    let numbers = text.split(separator: "/", omittingEmptySubsequences: false).map { Int($0) ?? -1 }
    guard numbers.count == 2 || numbers.count == 4, numbers.allSatisfy({ $0 >= 0 }) else { return nil }
    self.init(live: live, point: numbers[0], picture: numbers[1])
    if numbers.count == 4 { (recoveryPoint, recoveryPicture) = (numbers[2], numbers[3]) }
  }

  package var description: String {
    let first = "\(isLive ? "live" : "")\(point)/\(picture)"
    guard let recoveryPoint, let recoveryPicture else { return first }
    return "\(first)/\(recoveryPoint)/\(recoveryPicture)"
  }
}

/// What a hunt did.
package struct CrashHuntReport: Sendable, Equatable {
  /// The device calls of the workload, formatting included.
  package var callCount = 0
  /// The crash points tried.
  package var pointCount = 0
  /// The pictures opened after a crash of the workload, and after one during a recovery.
  package var stateCount = 0
  package var recoveryStateCount = 0
  /// Both together.
  package var allStatesCount: Int { stateCount + recoveryStateCount }

  package init() {}

  /// Adds what another hunt did.
  package static func += (left: inout CrashHuntReport, right: CrashHuntReport) {
    left.callCount += right.callCount
    left.pointCount += right.pointCount
    left.stateCount += right.stateCount
    left.recoveryStateCount += right.recoveryStateCount
  }
}

/// A store that did not come back as it should.
package struct CrashHuntFailure: Error, CustomStringConvertible {
  package let scenario: String
  package let seed: UInt64
  package let place: CrashPlace
  package let cause: any Error
  /// What became of the calls that no sync had covered.
  package let picture: String

  package var description: String {
    """
    \(scenario), crash at call \(place.point), picture \(place.picture)\(recovery): \(cause)
    (to repeat it: LACUNA_SEED=\(seed) LACUNA_CRASH=\(scenario)/\(place))
    \(picture)
    """
  }

  private var recovery: String {
    guard let point = place.recoveryPoint, let picture = place.recoveryPicture else { return "" }
    return ", crash at call \(point) of its recovery, picture \(picture)"
  }
}
