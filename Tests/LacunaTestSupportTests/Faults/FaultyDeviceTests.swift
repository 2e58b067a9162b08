import Devices
import Glibc
import LacunaTestSupport
import Testing

/// The device that fails on demand, and counts.
@Suite struct FaultyDeviceTests {
  static let operations: [DeviceError.Operation] = [.read, .write, .sync, .discard, .grow]

  @Test(arguments: operations)
  func `the n-th call of a kind fails, once or from then on, and the others do not`(
    operation: DeviceError.Operation
  ) throws {
    for lasts in [false, true] {
      for call in 0..<4 {
        let device = FaultyDevice(CrashDevice(byteCount: 4096))
        device.inject(DeviceFault(operation, call: call, errno: ENOSPC, lasts: lasts))
        for number in 0..<6 {
          for kind in Self.operations {
            if kind == operation && (number == call || lasts && number > call) {
              expectErrno(ENOSPC) { try device.perform(kind) }
            } else {
              try device.perform(kind)
            }
          }
        }
        #expect(Self.operations.allSatisfy { device.counts[$0] == 6 })
        #expect(device.counts.total == 30 && device.counts[nil] == 30)
        device.clearFaults()
        try device.perform(operation)
      }
    }
  }

  @Test func `the n-th call of any kind fails`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: 4096), faults: [DeviceFault(nil, call: 2)])
    try device.perform(.write)
    try device.perform(.sync)
    expectErrno(EIO) { try device.perform(.read) }
    try device.perform(.read)
  }

  @Test func `a failing call does nothing, half or all of what it should`() throws {
    let effects: [(DeviceFault.Effect, [UInt8])] = [(.nothing, [0, 0]), (.half, [9, 0]), (.all, [9, 9])]
    for (effect, expected) in effects {
      let base = CrashDevice(byteCount: 8192, maximumByteCount: 16_384)
      let device = FaultyDevice(base)
      device.inject(DeviceFault(.write, call: 0, effect: effect))
      expectErrno(EIO) { try device.write(bytes: [UInt8](repeating: 9, count: 8192), at: 0) }
      #expect([try base.bytes(0..<1), try base.bytes(8191..<8192)].joined().elementsEqual(expected))

      device.inject(DeviceFault(.read, call: 0, effect: effect))
      try base.write(bytes: [9, 9], at: 0)
      var found: [UInt8] = [0, 0]
      expectErrno(EIO) { try found.withUnsafeMutableBytes { try device.read(into: $0, at: 0) } }
      #expect(found == expected)

      device.inject(DeviceFault(.discard, call: 0, effect: effect))
      expectErrno(EIO) { try device.discard(0..<2) }
      #expect(try base.bytes(0..<2) == expected.map { $0 == 9 ? 0 : 9 })

      device.inject(DeviceFault(.grow, call: 0, effect: effect))
      expectErrno(EIO) { try device.grow(to: 16_384) }
      #expect(device.byteCount == [0: 8192, 1: 12_288, 2: 16_384][expected.count { $0 == 9 }])

      device.inject(DeviceFault(.sync, call: 0, effect: effect))
      expectErrno(EIO) { try device.sync() }
      let log = base.log
      #expect(log.moment(at: log.calls.count).pending.isEmpty == (expected == [9, 9]))
    }
  }

  @Test func `a failed sync may lose what was written, and the next one does not bring it back`() throws {
    for visibly in [false, true] {
      let base = CrashDevice(byteCount: 512)
      let device = FaultyDevice(base)
      try device.write(bytes: [1], at: 0)
      try device.sync()
      try device.write(bytes: [2], at: 0)
      device.inject(DeviceFault(.sync, call: 1, effect: .dropsUnsynced(visibly: visibly)))
      expectErrno(EIO) { try device.sync() }
      #expect(try device.bytes(0..<1) == [visibly ? 1 : 2])
      try device.write(bytes: [3], at: 1)
      try device.sync()
      let moment = base.log.moment(at: base.callCount)
      #expect(moment.pending.isEmpty)
      #expect(moment.durable.bytes(0..<2) == [1, 3])
    }
  }

  @Test func `reads of a range return flipped bits, zeroes or other bytes, and those around it the right ones`() throws
  {
    let device = FaultyDevice(CrashDevice(byteCount: 16))
    try device.write(bytes: Array(1...16), at: 0)
    device.corruptReads(of: 4..<8, .zeroes)
    #expect(try device.bytes(2..<9) == [3, 4, 0, 0, 0, 0, 9])
    #expect(try device.bytes(5..<6) == [0])
    device.clearFaults()
    device.corruptReads(of: 4..<8, .flippedBit(9))
    #expect(try device.bytes(2..<9) == [3, 4, 5, 4, 7, 8, 9])
    #expect(try device.bytes(6..<9) == [7, 8, 9])
    device.clearFaults()
    device.corruptReads(of: 4..<8, .bytes(from: 12))
    #expect(try device.bytes(2..<9) == [3, 4, 13, 14, 15, 16, 9])
    #expect(try device.bytes(6..<7) == [15])
    device.clearFaults()
    #expect(try device.bytes(0..<16) == Array(1...16))
  }
}

/// Many threads on one device. The thread sanitizer runs these.
@Suite struct FaultyDeviceConcurrencyTests {
  @Test func `calls and bytes are counted from all threads`() throws {
    let device = FaultyDevice(CrashDevice(byteCount: 4096))
    try inThreads(4) { _ in
      for _ in 0..<100 {
        try device.write(bytes: [1, 2, 3], at: 0)
        try device.sync()
        _ = try device.bytes(0..<2)
      }
    }
    var expected = DeviceCallCounts()
    (expected.writes, expected.syncs, expected.reads) = (400, 400, 400)
    (expected.bytesWritten, expected.bytesRead) = (1200, 800)
    #expect(device.counts == expected)
  }
}

extension BlockDevice {
  /// Makes one harmless call.
  fileprivate func perform(_ operation: DeviceError.Operation) throws {
    switch operation {
    case .read: _ = try bytes(0..<16)
    case .write: try write(bytes: [1, 2], at: 0)
    case .sync: try sync()
    case .discard: try discard(0..<8)
    case .grow: try grow(to: byteCount)
    case .open, .lock, .close, .findAllocated: break
    }
  }
}
