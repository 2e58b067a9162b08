import Devices
import ExtentFS
import Glibc
import LacunaTestSupport
import Testing

/// Power cuts and failing devices, while volumes, snapshots, clones and throwaways come and go.
@Suite(.slow) struct NamespaceCrashTests {
  private static func scenario(
    stepCount: Int
  ) -> CrashScenario<NamespaceStore<CrashDevice>, NamespaceLedger, NamespaceExpectation> {
    var scenario = CrashScenario(
      name: "namespace", byteCount: 0, maximumByteCount: 8 << 20, stepCount: stepCount,
      format: { try NamespaceStore.format($0) },
      open: { try NamespaceStore(opening: $0) },
      close: { _ in },
      oracle: { NamespaceLedger(clock: $0) },
      step: { store, ledger, _, generator in try store.step(ledger, &generator) },
      expectation: { ledger, point in ledger.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
    scenario.fingerprint = { try $0.fingerprint() }
    return scenario
  }

  @Test func `no power cut leaves half of what was done to volumes and snapshots`() throws {
    var generator = SeededGenerator(seed: try withSeededGenerator { $0.next() })
    var total = CrashHuntReport()
    for number in 0..<HuntLength.seedCount {
      var hunt = CrashHunt()
      hunt.mostPoints = 300
      if let count = HuntLength.pictureCount {
        hunt.mostPoints = nil
        hunt.pictures = Pictures(.sampled(count))
        hunt.liveCuts = 40
      }
      if number > 0 { hunt.seed = generator.next() >> 16 }
      total += try hunt.run(Self.scenario(stepCount: 200)) { log in
        try CrashStore.orderRules.check(log)
        try JournalRules.check(log, journal: CrashStore.journalBytes)
      }
    }
    HuntLength.tell("namespace", total, of: "\(HuntLength.seedCount) workloads")
  }

  /// The workload up to the first error; then what a new process finds.
  private func run(_ fault: DeviceFault?, seed: UInt64) throws -> DeviceCallCounts {
    let base = CrashDevice(MediumImage(byteCount: 0), maximumByteCount: 8 << 20)
    try NamespaceStore.format(base)
    let device = FaultyDevice(base, faults: fault.map { [$0] } ?? [])
    let ledger = NamespaceLedger { base.callCount }
    var generator = SeededGenerator(seed: seed)
    do {
      var store = try NamespaceStore(opening: device)
      for _ in 0..<120 { try store.step(ledger, &generator) }
      try ledger.expectation().check(try store.state())
    } catch let error as ExtentFSError where fault != nil && (error.isOfDevice || error.code == .outOfSpace) {}
    let counts = device.counts
    base.forgetCache()
    let store = try NamespaceStore(opening: base)
    if case .dropsUnsynced? = fault?.effect {
      try store.check(ledger.expectation(at: .max))
    } else {
      try store.check(ledger.expectation())
    }
    return counts
  }

  @Test(arguments: [DeviceError.Operation.read, .write, .sync, .grow])
  func `a device that fails at any call leaves each operation done or not done`(_ operation: DeviceError.Operation)
    throws
  {
    try withSeededGenerator { generator in
      let seed = generator.next() >> 16
      let count = try run(nil, seed: seed)[operation]
      try check(count > 0, "the workload has no \(operation)")
      let step = getenv("LACUNA_HUNT_SEEDS") != nil ? 1 : max(1, count / 60)
      let effects: [DeviceFault.Effect] = operation == .sync ? [.nothing, .dropsUnsynced(visibly: true)] : [.nothing]
      for call in stride(from: generator.number(below: step), to: count, by: step) {
        for effect in effects {
          for (errno, lasts) in [(EIO, false), (EIO, true), (ENOSPC, true)] {
            let fault = DeviceFault(operation, call: call, errno: errno, lasts: lasts, effect: effect)
            do { _ = try run(fault, seed: seed) } catch { throw CheckFailure("\(fault): \(error)") }
          }
        }
      }
    }
  }
}
