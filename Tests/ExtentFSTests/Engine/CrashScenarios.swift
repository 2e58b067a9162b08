import Devices
import ExtentFS
import Glibc
import LacunaTestSupport

extension CrashScenario<CrashStore, CrashLedgers, CrashExpectation> {
  /// Steps of one thread, or what `step` makes of them.
  static func engine(
    _ shape: CrashShape,
    format: @escaping @Sendable (CrashDevice) throws -> Void = { _ in },
    step: @escaping @Sendable (inout CrashStore, CrashLedgers, Int, inout SeededGenerator) throws -> Void = {
      try $0.step($1, &$3)
    }
  ) -> CrashScenario {
    var scenario = CrashScenario(
      name: shape.name, byteCount: 0, maximumByteCount: shape.maximumByteCount, stepCount: shape.stepCount,
      format: { device in
        try format(device)
        try CrashStore.format(device, shape)
      },
      open: { try CrashStore(opening: $0, shape) },
      close: { $0.close() },
      oracle: { CrashLedgers(shape, clock: $0) },
      step: step,
      expectation: { ledgers, point in ledgers.expectation(at: point) },
      check: { store, expectation in try store.check(expectation) })
    scenario.fingerprint = { try $0.fingerprint() }
    return scenario
  }

  /// The device has room for one step of growth at a time, and often for none. The store grows when it must.
  static func growing(_ shape: CrashShape) -> CrashScenario {
    let step: UInt64 = 1 << 20
    return engine(
      shape, format: { $0.setMaximumByteCount(StoreGeometry.journalOffset + 65536 + step) },
      step: { store, ledgers, index, generator in
        if generator.oneIn(12) { store.device.setMaximumByteCount(store.device.byteCount + step) }
        // From one end of the disk to the other, so that it surely needs all that the device may have.
        let units = ledgers.disks[0].blockCount
        let count = units / UInt64(shape.stepCount / 8)
        if index % 8 == 7 { try store.write(count * UInt64(index / 8)..<count * UInt64(index / 8 + 1), ledgers) }
        try store.step(ledgers, &generator)
      })
  }

  /// Now and then the disk is filled, and trimmed from end to end.
  static func trimming(_ shape: CrashShape) -> CrashScenario {
    engine(
      shape,
      step: { store, ledgers, index, generator in
        switch index % 20 {
        case 6..<12:
          let count = ledgers.disks[0].blockCount / 6
          try store.write(count * UInt64(index % 20 - 6)..<count * UInt64(index % 20 - 5), ledgers)
        case 14: try store.trimAll(ledgers)
        case 16:
          // What is freed stays with the host, until the next process asks.
          try store.trimAll(ledgers, givesBack: false)
          try store.reopen()
          try store.reclaim(&generator)
        default: try store.step(ledgers, &generator)
        }
      })
  }

  /// Three threads at once. While a sync is on its way, the others go on, and wait for the next one together.
  static func writers(_ shape: CrashShape) -> CrashScenario {
    engine(
      shape,
      step: { store, ledgers, _, generator in
        while store.volumes.count < shape.volumeCount { try store.makeVolume(ledgers) }
        try store.stepInThreads(3, ledgers, &generator)
      })
  }
}
