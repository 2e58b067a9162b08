import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

/// The devices of the tests are devices, and tear batches.
@Suite struct TestDeviceTests {
  static let kinds = [
    DeviceKind("crash") { byteCount, body in
      try body(CrashDevice(byteCount: byteCount, maximumByteCount: max(byteCount, 8 << 20)))
    },
    DeviceKind("faulty") { byteCount, body in
      try body(FaultyDevice(CrashDevice(byteCount: byteCount, maximumByteCount: max(byteCount, 8 << 20))))
    },
    DeviceKind("paced") { byteCount, body in
      try body(PacedDevice(MemoryDevice(byteCount: byteCount, maximumByteCount: max(byteCount, 8 << 20))))
    },
  ]

  @Test(arguments: BlockDeviceConformance.promises, kinds)
  func `a device keeps its promise`(promise: Promise<DeviceKind>, kind: DeviceKind) throws { try promise.test(kind) }

  /// Four blocks, the second and third of which touch.
  private static let pieces = [40_960, 4096, 8192, 20_480].enumerated().map { index, offset in
    (offset: UInt64(offset), bytes: [UInt8](repeating: UInt8(index + 1), count: 4096))
  }

  /// Which pieces are on a device.
  private func pieces(_ read: (Range<UInt64>) throws -> [UInt8]) rethrows -> [Bool] {
    try Self.pieces.map { try read($0.offset..<$0.offset + 4096) == $0.bytes }
  }

  @Test func `a power cut after a batch may leave any of its pieces`() throws {
    let device = CrashDevice(byteCount: 65_536)
    try device.write(batch: Self.pieces)
    #expect(device.callCount == 4)
    let moment = device.log.moment(at: 4)
    #expect(moment.pending.count == 4)
    for set in 0..<16 {
      let isKept = (0..<4).map { set >> $0 & 1 == 1 }
      let picture = moment.picture(isKept.map { $0 ? .kept : .lost })
      #expect(pieces { picture.bytes($0) } == isKept)
    }
    // As a device that writes in an order of its own: the last piece alone, and a part of one.
    let torn = moment.picture([.lost, .lost, .torn(seed: 3), .kept])
    #expect(pieces { torn.bytes($0) }.last == true)
    try device.sync()
    #expect(device.log.moment(at: 5).pending.isEmpty)
  }

  @Test func `a power cut in the middle of a batch fails it, and what comes later`() throws {
    let device = CrashDevice(byteCount: 65_536)
    device.cutPower(atCall: 2)
    expectFailure(.write, CrashDevice.powerCutErrno) { try device.write(batch: Self.pieces) }
    // Two pieces may be there whole, and of the third a part.
    #expect(device.log.calls.count == 3)
    expectFailure(.read, CrashDevice.powerCutErrno) { _ = try device.bytes(batch: [(0, 1), (9, 1)]) }
  }

  @Test func `a batch counts as one call, and its bytes are counted`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: 65_536))
    try device.write(batch: Self.pieces)
    _ = try device.bytes(batch: [(0, 10), (100, 20)])
    #expect(device.counts.writes == 1 && device.counts.bytesWritten == 16_384)
    #expect(device.counts.reads == 1 && device.counts.bytesRead == 30)
    #expect(device.counts.total == 2)
  }

  @Test func `a batch that fails does none, some or all of what it should`() throws {
    let effects: [(DeviceFault.Effect, [Bool])] = [
      (.nothing, [false, false, false, false]), (.half, [true, false, true, false]), (.all, [true, true, true, true]),
    ]
    for (effect, expected) in effects {
      let device = FaultyDevice(CrashDevice(byteCount: 65_536), faults: [DeviceFault(.write, call: 0, effect: effect)])
      expectFailure(.write, EIO) { try device.write(batch: Self.pieces) }
      #expect(try pieces { try device.base.bytes($0) } == expected)

      device.inject(DeviceFault(.read, call: 0, effect: effect))
      expectFailure(.read, EIO) { _ = try device.bytes(batch: [(0, 1), (5, 1)]) }
      _ = try device.bytes(batch: [(0, 1), (5, 1)])
    }
  }

  @Test func `a host without room stops a batch at one of its pieces`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: 65_536))
    device.setHost { _, range in range.lowerBound == 8192 ? 10 : nil }
    expectFailure(.write, ENOSPC) { try device.write(batch: Self.pieces) }
    #expect(try pieces { try device.base.bytes($0) } == [true, true, false, false])
    #expect(try device.base.bytes(8192..<8202) == [UInt8](repeating: 3, count: 10))
    #expect(try device.base.bytes(8202..<8203) == [0])
  }

  @Test func `reads of a batch are corrupted as others are`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: 65_536))
    try device.write(batch: Self.pieces)
    device.corruptReads(of: 4096..<4097, .flippedBit(0))
    #expect(try device.bytes(batch: [(4095, 3), (8192, 1)]) == [[0, 3, 2], [3]])
  }

  @Test func `a batch waits where one of its pieces is meant`() throws {
    let device = PacedDevice(try MemoryDevice(byteCount: 65_536))
    let stop = device.stop(.before, next: .write) { $0.lowerBound == 20_480 }
    let isDone = Locked(false)
    try inThreads([
      {
        try device.write(batch: Self.pieces)
        isDone.withLock { $0 = true }
      },
      {
        stop.waitUntilHit()
        try check(!isDone.withLock { $0 }, "the batch did not wait")
        stop.letGo()
      },
    ])
    #expect(isDone.withLock { $0 })
  }
}
