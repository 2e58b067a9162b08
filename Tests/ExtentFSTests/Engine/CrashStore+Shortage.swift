import Bytes
import Devices
import ExtentFS
import LacunaTestSupport

/// A host without room: which writes fail, and how much of each is done.
final class ShortHost: Sendable {
  private let state: Locked<(generator: SeededGenerator, oddsOfFailure: Int)>

  /// - Parameter oddsOfFailure: one in so many writes fails.
  init(seed: UInt64, oddsOfFailure: Int) { state = Locked((SeededGenerator(seed: seed), oddsOfFailure)) }

  func kept(of operation: DeviceError.Operation, _ range: Range<UInt64>) -> Int? {
    state.withLock { state in
      guard state.generator.number(below: state.oddsOfFailure) == 0 else { return nil }
      // A superblock is a page, which is written whole or not at all. Everything else may be torn, at any byte.
      guard range.lowerBound >= StoreGeometry.journalOffset, state.generator.number(below: 2) == 0 else { return 0 }
      let isJournal = CrashStore.journalBytes.contains(range.lowerBound)
      // Records begin with 48 bytes that no shorter one is.
      return state.generator.number(below: isJournal ? 48 : Int(range.length))
    }
  }
}

extension FaultStore<FaultyDevice<CrashDevice>> {
  /// As `step`, on a host that has no room now and then. The engine goes on all the same.
  mutating func shortStep(_ ledgers: CrashLedgers, _ generator: inout SeededGenerator) throws {
    if generator.oneIn(5) {
      let host = ShortHost(seed: generator.next(), oddsOfFailure: 1 + generator.number(below: 12))
      device.setHost { host.kept(of: $0, $1) }
    } else if generator.oneIn(3) {
      device.setHost(nil)
    }
    do {
      try step(ledgers, &generator)
    } catch let error as ExtentFSError where error.isLackOfSpace {
      // Only opening anew can end a step like this, and what cannot be opened for writing is not changed by that.
      device.setHost(nil)
      try reopen()
    }
    try engine.health.requireWritable()
  }
}

extension CrashScenario<FaultStore<FaultyDevice<CrashDevice>>, CrashLedgers, CrashExpectation> {
  /// The host has no room now and then.
  static func short(_ shape: CrashShape) -> CrashScenario {
    var scenario = CrashScenario(
      name: shape.name, byteCount: 0, maximumByteCount: shape.maximumByteCount, stepCount: shape.stepCount,
      format: { try CrashStore.format($0, shape) },
      open: { try FaultStore(opening: FaultyDevice($0), shape) { FaultyDevice($0.base) } },
      close: { $0.close() },
      oracle: { CrashLedgers(shape, clock: $0) },
      step: { store, ledgers, _, generator in try store.shortStep(ledgers, &generator) },
      expectation: { ledgers, point in ledgers.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
    scenario.fingerprint = { try $0.fingerprint() }
    return scenario
  }
}
