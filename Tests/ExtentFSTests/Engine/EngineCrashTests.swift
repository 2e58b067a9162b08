import Bytes
import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// How long the hunts are: scripts/crash-hunt sets all three.
enum HuntLength {
  /// How many workloads, each with a seed of its own.
  static let seedCount = number("LACUNA_HUNT_SEEDS") ?? 1
  /// The pictures that each crash point of a long hunt has; nil in a short one.
  static let pictureCount = number("LACUNA_HUNT_PICTURES")
  /// The longest row of operations that is tried exhaustively.
  static let sequenceLength = number("LACUNA_HUNT_SEQUENCES") ?? 2

  private static let states = Locked(0)

  /// Says what a hunt did, and what all have done so far.
  static func tell(_ name: String, _ report: CrashHuntReport, of what: String) {
    let all = states.withLock { states in
      states += report.allStatesCount
      return states
    }
    print(
      "crash states: \(report.allStatesCount) of \(name), \(report.recoveryStateCount) of them in recovery, "
        + "from \(what); \(all) so far")
    // A long hunt's log shall show how far it is.
    fflush(nil)
  }

  private static func number(_ name: String) -> Int? { getenv(name).flatMap { Int(String(cString: $0)) } }
}

@Suite(.slow) struct EngineCrashTests {
  private func hunt(_ shape: CrashShape, mostPoints: Int? = nil) throws {
    try hunt(.engine(shape), mostPoints: mostPoints)
  }

  /// - Parameter requires: what the workload must have done, so that the hunt is about something.
  private func hunt<Store>(
    _ scenario: CrashScenario<Store, CrashLedgers, CrashExpectation>, mostPoints: Int? = nil,
    duringSync: (@Sendable () -> Void)? = nil, requires: (CrashLog) -> Bool = { _ in true }
  ) throws {
    var generator = SeededGenerator(seed: try withSeededGenerator { $0.next() })
    var total = CrashHuntReport()
    for number in 0..<HuntLength.seedCount {
      var hunt = CrashHunt()
      hunt.mostPoints = mostPoints
      hunt.duringSync = duringSync
      if let count = HuntLength.pictureCount {
        hunt.mostPoints = nil
        hunt.pictures = Pictures(.sampled(count))
        hunt.recoveryStates = 2
        hunt.recoveryEvery = 2
        hunt.liveCuts = 40
      }
      // The first one has the seed of the run, which repeats what a failure names.
      if number > 0 { hunt.seed = generator.next() >> 16 }
      total += try hunt.run(scenario) { log in
        try CrashStore.orderRules.check(log)
        try JournalRules.check(
          log, journal: CrashStore.journalBytes, mayBeShort: scenario.name == CrashShape.short.name)
        if !requires(log) { throw CheckFailure("\(scenario.name): the workload lacks what it is there for") }
      }
    }
    HuntLength.tell(scenario.name, total, of: "\(HuntLength.seedCount) workloads")
  }

  @Test func `no power cut loses what was flushed or tears a block`() throws { try hunt(CrashShape()) }

  @Test func `no power cut loses or tears what was written in parts of blocks`() throws { try hunt(.parts) }

  @Test func `no power cut loses a volume, or what was written while others were made`() throws { try hunt(.volumes) }

  @Test func `no power cut loses what was flushed to a store that is full`() throws { try hunt(.full) }

  @Test func `no power cut loses what was flushed after processes died at any call`() throws {
    try hunt(.deaths(.deaths))
  }

  @Test func `no power cut loses what was flushed while the host had no room now and then`() throws {
    try hunt(.short(.short))
  }

  @Test func `no power cut loses what was flushed while the device grew`() throws {
    let isRight: (CrashLog) -> Bool = { log in log.calls.count { if case .grow = $0 { true } else { false } } >= 4 }
    try hunt(.growing(.growing), mostPoints: 200, requires: isRight)
  }

  @Test func `no power cut loses what was flushed while free space went back to the host`() throws {
    let isRight: (CrashLog) -> Bool = { log in log.calls.contains { if case .discard = $0 { true } else { false } } }
    try hunt(.trimming(.trimming), requires: isRight)
  }

  @Test func `no power cut loses what several threads wrote before a flush that they shared`() throws {
    try hunt(.writers(.writers), mostPoints: 350, duringSync: { usleep(200) })
  }

  @Test func `a device that lies about its syncs is caught`() {
    var hunt = CrashHunt()
    hunt.seed = 1
    hunt.mostPoints = 200
    hunt.syncsLie = true
    #expect(throws: CrashHuntFailure.self) { try hunt.run(.engine(CrashShape())) }
  }

  @Test func `a recovery that does not verify data is caught`() {
    var hunt = CrashHunt()
    hunt.seed = 1
    hunt.mostPoints = 200
    hunt.recoveryStates = 0
    hunt.liveCuts = 0
    var shape = CrashShape()
    shape.skipsDataVerification = true
    #expect(throws: CrashHuntFailure.self) { try hunt.run(.engine(shape)) }
  }
}
