import Bytes
import Glibc

/// Cuts the power at every device call of a workload, and opens the store from every picture asked for.
///
/// The workload runs once and is recorded; the crash points are then moments of the recording, so that a state costs an
/// opening and a check and no more. Live cuts run the workload again and let it meet the power cut.
///
/// `LACUNA_SEED` gives the seed, and `LACUNA_CRASH=<scenario>/<place>` restricts the hunt to the state that a failure
/// named. Both repeat a failure exactly where the workload calls the device from one thread at a time. For a store that
/// traps or hangs, `LACUNA_CRASH_TRACE=1` prints every state before it is tried.
package struct CrashHunt: Sendable {
  /// The pictures for each crash point.
  package var pictures = Pictures(.sampled(8))
  /// The most crash points to try; they are spread over the workload. Those around growths and discards come on top.
  /// Nil for all.
  package var mostPoints: Int?
  /// How many states of a crash during recovery to try for each state...
  package var recoveryStates = 1
  /// ... that is the n-th of its crash point.
  package var recoveryEvery = 4
  /// How many times to run the workload into a power cut.
  package var liveCuts = 8
  /// How many states are opened at once.
  package var threadCount = 2
  /// Nil for the seed of this run.
  package var seed: UInt64?
  /// The one state to try; nil for what `LACUNA_CRASH` says, or all.
  package var only: CrashPlace?
  /// Makes the syncs of the workload do nothing: for tests of the tests.
  package var syncsLie = false
  /// What to do while a sync of the workload is on its way.
  package var duringSync: (@Sendable () -> Void)?

  package init() {}

  /// Runs the hunt.
  ///
  /// - Parameter inspect: gets the recording of the workload, such as to check the order of its calls.
  /// - Throws: `CrashHuntFailure` for the first state found wrong, or what the workload threw with the power on.
  @discardableResult
  package func run<Store, Oracle, Expectation>(
    _ scenario: CrashScenario<Store, Oracle, Expectation>, inspect: (CrashLog) throws -> Void = { _ in }
  ) throws -> CrashHuntReport {
    let hunter = Hunter(hunt: self, scenario: scenario, seed: seed ?? seedOfThisRun)
    let only = try only ?? Self.placeFromEnvironment(scenario.name)
    if let only {
      try hunter.repeatState(only)
    } else {
      try hunter.huntRecording(inspect)
      try hunter.huntLive()
    }
    return hunter.report
  }

  private static func placeFromEnvironment(_ name: String) throws -> CrashPlace? {
    guard let value = getenv("LACUNA_CRASH") else { return nil }
    let text = String(cString: value)
    guard text.hasPrefix(name + "/") else { return nil }
    guard let place = CrashPlace(String(text.dropFirst(name.count + 1))) else {
      throw CheckFailure("LACUNA_CRASH=\(text) names no state")
    }
    return place
  }
}

/// One run of one hunt.
private final class Hunter<Store, Oracle: Sendable, Expectation: Sendable>: Sendable {
  private struct Recording: Sendable {
    let log: CrashLog
    let firstPoint: Int
    let oracle: Oracle
  }

  private let hunt: CrashHunt
  private let scenario: CrashScenario<Store, Oracle, Expectation>
  private let seed: UInt64
  private let counts = Locked(CrashHuntReport())

  init(hunt: CrashHunt, scenario: CrashScenario<Store, Oracle, Expectation>, seed: UInt64) {
    self.hunt = hunt
    self.scenario = scenario
    self.seed = seed
  }

  var report: CrashHuntReport { counts.withLock { $0 } }

  // MARK: The workload

  /// Runs the workload, to its end or into a power cut at a call that comes so long after formatting.
  private func record(cutAfter cut: Int? = nil) throws -> Recording {
    let device = CrashDevice(
      MediumImage(byteCount: scenario.byteCount), maximumByteCount: scenario.maximumByteCount,
      duringSync: hunt.duringSync)
    device.setSyncsLie(hunt.syncsLie)
    try scenario.format(device)
    var firstPoint = device.callCount
    let oracle = scenario.oracle { device.callCount }
    do {
      try runSteps(on: device, oracle) {
        firstPoint = device.callCount
        if let cut { device.cutPower(atCall: firstPoint + cut) }
      }
    } catch {
      // Anything may go wrong without power, as long as nobody is told that it went well.
      if !device.isPowerCut { throw WorkloadFailure(scenario: scenario.name, seed: seed, cause: error) }
    }
    return Recording(log: device.log, firstPoint: firstPoint, oracle: oracle)
  }

  private func runSteps(on device: CrashDevice, _ oracle: Oracle, afterSetup: () -> Void) throws {
    var generator = SeededGenerator(seed: seed)
    if scenario.setupStepCount == 0 { afterSetup() }
    var store = try scenario.open(device)
    defer { scenario.close(store) }
    for index in 0..<scenario.stepCount {
      try scenario.step(&store, oracle, index, &generator)
      if index + 1 == scenario.setupStepCount { afterSetup() }
    }
  }

  // MARK: Crashes

  func huntRecording(_ inspect: (CrashLog) throws -> Void) throws {
    let recording = try record()
    counts.withLock { $0.callCount = recording.log.calls.count }
    try inspect(recording.log)
    let points = chosenPoints(of: recording)
    let cursor = Locked(CrashCursor(recording.log))
    try inWorkers { [self] in
      guard let moment = Self.next(in: points, cursor) else { return false }
      try tryPictures(of: moment, recording.oracle, live: nil)
      return true
    }
  }

  func huntLive() throws {
    var generator = SeededGenerator(seed: seed ^ 0x4C69_7665)
    let callCount = max(1, counts.withLock { $0.callCount })
    let cuts = Locked((0..<hunt.liveCuts).map { _ in generator.number(below: callCount) })
    try inWorkers { [self] in
      guard let cut = cuts.withLock({ $0.popLast() }) else { return false }
      let recording = try record(cutAfter: cut)
      try tryPictures(of: recording.log.moment(at: recording.log.calls.count), recording.oracle, live: cut)
      return true
    }
  }

  /// Calls `work` from the hunt's threads until it returns false, or throws.
  private func inWorkers(_ work: @escaping @Sendable () throws -> Bool) throws {
    let isOver = Locked(false)
    let loop: @Sendable () throws -> Void = {
      do {
        while try !isOver.withLock({ $0 }) && work() {}
      } catch {
        isOver.withLock { $0 = true }
        throw error
      }
    }
    if hunt.threadCount == 1 { return try loop() }
    try inThreads(stackByteCount: 8 << 20, Array(repeating: loop, count: hunt.threadCount))
  }

  func repeatState(_ place: CrashPlace) throws {
    let recording = try record(cutAfter: place.isLive ? place.point : nil)
    let point = place.isLive ? recording.log.calls.count : place.point
    guard point < recording.log.crashPointCount else {
      throw CheckFailure("\(scenario.name) has \(recording.log.crashPointCount) crash points, and no \(point)")
    }
    let moment = recording.log.moment(at: point)
    guard place.picture < moment.pictureCount(hunt.pictures) else {
      throw CheckFailure("\(scenario.name) has no picture \(place.picture) at crash point \(point)")
    }
    try tryState(place, moment, scenario.expectation(recording.oracle, point), repeats: true)
  }

  private func chosenPoints(of recording: Recording) -> Set<Int> {
    let count = recording.log.crashPointCount - recording.firstPoint
    guard let most = hunt.mostPoints, most < count else {
      return Set(recording.firstPoint..<recording.log.crashPointCount)
    }
    var generator = SeededGenerator(seed: seed ^ 0x506F_696E)
    var points = Set((0..<most).map { recording.firstPoint + ($0 * count + generator.number(below: count)) / most })
    guard most > 0 else { return points }
    for (number, call) in recording.log.calls.enumerated().dropFirst(recording.firstPoint) where call.isRare {
      points.formUnion(number...min(number + 3, recording.log.calls.count))
    }
    return points
  }

  private static func next(in points: Set<Int>, _ cursor: Locked<CrashCursor>) -> CrashMoment? {
    cursor.withLock { cursor in
      // The moment is taken before the step to the next one; the last one is stepped onto, and then past.
      while true {
        let moment = cursor.moment
        guard cursor.takeStep() else { return nil }
        if points.contains(moment.point) { return moment }
      }
    }
  }

  private func tryPictures(of moment: CrashMoment, _ oracle: Oracle, live cut: Int?) throws {
    let expectation = scenario.expectation(oracle, moment.point)
    counts.withLock { $0.pointCount += 1 }
    // Where little is pending, several numbers make the same picture.
    var seen: Set<[CrashMoment.Fate]> = []
    for picture in 0..<moment.pictureCount(hunt.pictures) {
      guard seen.insert(moment.fates(picture, hunt.pictures, seed: seed)).inserted else { continue }
      let place = CrashPlace(live: cut != nil, point: cut ?? moment.point, picture: picture)
      try tryState(place, moment, expectation, repeats: false)
    }
  }

  /// Opens one picture and checks it, and crashes its recovery where that is due.
  private func tryState(
    _ place: CrashPlace, _ moment: CrashMoment, _ expectation: Expectation, repeats: Bool
  ) throws {
    let fates = moment.fates(place.picture, hunt.pictures, seed: seed)
    let crashesRecovery =
      repeats ? place.recoveryPoint != nil : hunt.recoveryStates > 0 && place.picture % hunt.recoveryEvery == 0
    let recovery = try attempt(place, { moment.description(fates) }) {
      try open(moment.picture(fates, hunt.pictures), expectation, takesFingerprint: crashesRecovery)
    }
    counts.withLock { $0.stateCount += 1 }
    guard crashesRecovery, !recovery.log.calls.isEmpty else { return }
    if let point = place.recoveryPoint, let picture = place.recoveryPicture {
      guard point < recovery.log.crashPointCount else { throw CheckFailure("the recovery has no crash point \(point)") }
      try tryRecovery(place, recovery, recovery.log.moment(at: point), picture, expectation)
    } else {
      try crashRecovery(place, recovery, expectation)
    }
  }

  private func crashRecovery(_ place: CrashPlace, _ recovery: Opening, _ expectation: Expectation) throws {
    var generator = SeededGenerator(seed: seed &+ UInt64(place.point) << 20 &+ UInt64(place.picture))
    for _ in 0..<hunt.recoveryStates {
      let moment = recovery.log.moment(at: generator.number(below: recovery.log.crashPointCount))
      var place = place
      place.recoveryPoint = moment.point
      place.recoveryPicture = generator.number(below: moment.pictureCount(hunt.pictures))
      try tryRecovery(place, recovery, moment, place.recoveryPicture ?? 0, expectation)
    }
  }

  private func tryRecovery(
    _ place: CrashPlace, _ recovery: Opening, _ moment: CrashMoment, _ picture: Int, _ expectation: Expectation
  ) throws {
    let fates = moment.fates(picture, hunt.pictures, seed: seed)
    _ = try attempt(place, { moment.description(fates) }) {
      let again = try open(moment.picture(fates, hunt.pictures), expectation, takesFingerprint: true)
      if again.fingerprint != recovery.fingerprint {
        throw CheckFailure("the second recovery finds something else than the first one did")
      }
      return again
    }
    counts.withLock { $0.recoveryStateCount += 1 }
  }

  /// What the opening of a picture did to the device, and what it found.
  private struct Opening {
    let log: CrashLog
    let fingerprint: UInt64?
  }

  /// Opens a picture and checks it.
  private func open(
    _ image: MediumImage, _ expectation: Expectation, takesFingerprint: Bool
  ) throws -> Opening {
    let device = CrashDevice(image, maximumByteCount: scenario.maximumByteCount)
    let store = try scenario.open(device)
    defer { scenario.close(store) }
    let opening = Opening(
      log: device.log, fingerprint: takesFingerprint ? try scenario.fingerprint?(store) : nil)
    try scenario.check(store, expectation)
    return opening
  }

  private func attempt(
    _ place: CrashPlace, _ picture: () -> String, _ body: () throws -> Opening
  ) throws(CrashHuntFailure) -> Opening {
    if tracesStates {
      print("LACUNA_SEED=\(seed) LACUNA_CRASH=\(scenario.name)/\(place)")
      fflush(nil)
    }
    do {
      return try body()
    } catch {
      throw CrashHuntFailure(scenario: scenario.name, seed: seed, place: place, cause: error, picture: picture())
    }
  }
}

extension CrashDevice.Call {
  /// Whether a workload has few calls like this one.
  fileprivate var isRare: Bool {
    switch self {
    case .grow, .discard: true
    case .write, .sync, .drop: false
    }
  }
}

private let tracesStates = getenv("LACUNA_CRASH_TRACE") != nil

/// A workload that failed with the power on.
private struct WorkloadFailure: Error, CustomStringConvertible {
  let scenario: String
  let seed: UInt64
  let cause: any Error

  var description: String { "\(scenario): the workload failed: \(cause) (to repeat it: LACUNA_SEED=\(seed))" }
}
