import Bytes
import Devices
import LacunaTestSupport
import Testing

/// Tests of the tester: a right store survives, and each wrong one is found out.
@Suite(.slow) struct CrashHuntTests {
  @Test func `a right store survives every crash, and crashes of its recovery`() throws {
    var hunt = CrashHunt()
    hunt.recoveryStates = 2
    let report = try hunt.run(.toy()) { try ToyStore.orderRules.check($0) }
    #expect(report.pointCount > 200)
    #expect(report.stateCount > 1_000)
    #expect(report.recoveryStateCount > 100)
  }

  @Test func `a right store survives structured pictures, and every subset of few calls`() throws {
    for choice in [Pictures.Choice.structured, .subsets(most: 6)] {
      var hunt = CrashHunt()
      hunt.pictures = Pictures(choice)
      hunt.liveCuts = 2
      try hunt.run(.toy(stepCount: 40))
    }
  }

  @Test(arguments: ToyStore.Flaw.allCases)
  func `each flaw is found, and the place named repeats it`(flaw: ToyStore.Flaw) throws {
    let failure = try #require(Self.failure(of: flaw))
    var again = CrashHunt()
    again.seed = failure.seed
    again.only = failure.place
    let same = #expect(throws: CrashHuntFailure.self) { try again.run(.toy(flaw: flaw)) }
    #expect(same?.place == failure.place)
    #expect(same.map { "\($0.cause)" } == "\(failure.cause)")
    #expect("\(failure)".contains("LACUNA_SEED=\(failure.seed) LACUNA_CRASH=toy/\(failure.place)"))
    #expect(CrashPlace("\(failure.place)") == failure.place)
  }

  @Test func `a device whose syncs lie is found`() {
    var hunt = CrashHunt()
    hunt.syncsLie = true
    #expect(throws: CrashHuntFailure.self) { try hunt.run(.toy()) }
  }

  @Test(arguments: [ToyStore.Flaw.reusesBlocksEarly, .superblockBeforeSync, .overwritesTable])
  func `a flaw of order shows in the recording alone`(flaw: ToyStore.Flaw) {
    var hunt = CrashHunt()
    hunt.mostPoints = 1
    hunt.liveCuts = 0
    let error = #expect(throws: CheckFailure.self) {
      // The one crash may find it as well, but the order is looked at first.
      try hunt.run(.toy(flaw: flaw)) { try ToyStore.orderRules.check($0) }
    }
    #expect(error?.description.contains(flaw == .superblockBeforeSync ? "is durable" : "reaches") == true)
  }

  @Test func `flaws that only show when a workload meets the power cut are found by live cuts`() {
    // It acknowledges flushes whatever the device says.
    var scenario = CrashScenario.toy()
    let step = scenario.step
    scenario.step = { store, ledger, index, generator in
      do {
        try step(&store, ledger, index, &generator)
      } catch {
        let flush = ledger.willFlush()
        ledger.didFinish(flush)
        throw error
      }
    }
    var hunt = CrashHunt()
    hunt.mostPoints = 0
    hunt.liveCuts = 100
    let error = #expect(throws: CrashHuntFailure.self) { try hunt.run(scenario) }
    #expect(error?.place.isLive == true)
    hunt.seed = error?.seed
    hunt.only = error?.place
    let same = #expect(throws: CrashHuntFailure.self) { try hunt.run(scenario) }
    #expect(same?.place == error?.place)
  }

  @Test func `a workload that fails with the power on fails the hunt`() {
    var scenario = CrashScenario.toy()
    scenario.step = { _, _, index, _ in if index == 3 { throw CheckFailure("broken") } }
    #expect(throws: (any Error).self) { try CrashHunt().run(scenario) }
  }

  @Test func `a place is read back from its text`() {
    let places = [
      CrashPlace(point: 3, picture: 4), CrashPlace(live: true, point: 0, picture: 12),
      CrashPlace(point: 3, picture: 4, recoveryPoint: 5, recoveryPicture: 6),
    ]
    for place in places { #expect(CrashPlace(place.description) == place) }
    for text in ["", "1", "1/2/3", "1/-2", "1/x", "live", "1/2/3/4/5", "1//2"] { #expect(CrashPlace(text) == nil) }
  }

  private static func failure(of flaw: ToyStore.Flaw) -> CrashHuntFailure? {
    var hunt = CrashHunt()
    // A fixed one: this is about the tester, and no seed is sure to find a flaw.
    hunt.seed = 1
    do {
      try hunt.run(.toy(flaw: flaw))
      return nil
    } catch {
      return error as? CrashHuntFailure
    }
  }
}
