import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

/// What is made anew on a block device is there whole, or not at all.
@Suite(.enabled(if: LoopDevice.isPossible, "needs losetup and the right to use it"), .slow)
struct BlockDeviceMakingTests {
  private static let held = 131_072

  /// The device's bytes as others see them.
  private func seen(_ path: FilePath, _ range: Range<Int>) throws -> [UInt8] {
    let file = try FileDescriptor.open(path, .readOnly)
    defer { try? file.close() }
    var bytes = [UInt8](repeating: 0xEE, count: range.count)
    let count = try bytes.withUnsafeMutableBytes {
      try file.read(fromAbsoluteOffset: Int64(range.lowerBound), into: $0)
    }
    #expect(count == range.count)
    return bytes
  }

  @Test func `the beginning is written last, and what was there is gone first`() throws {
    try LoopDevice.with(byteCount: 32 << 20) { path in
      let device = try FileDevice(opening: path)
      let old = pattern(32 << 20, seed: 1)
      try device.write(bytes: old, at: 0)
      try device.startAnew(holdingBack: Self.held)
      #expect(try seen(path, 0..<8 << 20).allSatisfy { $0 == 0 })
      #expect(try seen(path, 31 << 20..<32 << 20).allSatisfy { $0 == 0 })

      let new = pattern(200_000, seed: 2)
      try device.write(bytes: new, at: 1000)
      try device.sync()
      // Held back here, and there for whoever has the device open.
      #expect(try seen(path, 0..<Self.held).allSatisfy { $0 == 0 })
      #expect(try seen(path, Self.held..<201_000) == Array(new[(Self.held - 1000)...]))
      #expect(try device.bytes(at: 0, count: 300_000) == zeroes(1000) + new + zeroes(99_000))
      #expect(try device.bytes(at: 131_000, count: 10) == Array(new[130_000..<130_010]))
      #expect(try device.bytes(at: 131_072, count: 0) == [])

      try device.publish(last: [65_536..<65_544, 0..<8, 1 << 40..<1 << 41])
      try device.publish()
      #expect(try seen(path, 0..<300_000) == zeroes(1000) + new + zeroes(99_000))
      try device.write(bytes: [7], at: 5)
      #expect(try seen(path, 5..<6) == [7])
    }
  }

  @Test func `what is not published leaves a blank beginning`() throws {
    try LoopDevice.with(byteCount: 16 << 20) { path in
      do {
        let device = try FileDevice(opening: path)
        try device.write(bytes: pattern(4096, seed: 1), at: 0)
        try device.startAnew(holdingBack: Self.held)
        try device.write(bytes: pattern(4096, seed: 2), at: 0)
        device.abandon()
      }
      #expect(try seen(path, 0..<Self.held).allSatisfy { $0 == 0 })
      let device = try openWhenFree(path, access: .readOnly)
      expectFailure(.write, EROFS) { try device.startAnew(holdingBack: Self.held) }
    }
    try withTemporaryDirectory { directory in
      let file = try FileDevice(creating: directory.appending("file"), byteCount: 1 << 20)
      expectFailure(.write, EINVAL) { try file.startAnew(holdingBack: Self.held) }
    }
  }

  @Test func `storage that is given back leaves what is beside it`() throws {
    try LoopDevice.with(byteCount: 8 << 20) { path in
      let device = try FileDevice(opening: path)
      let bytes = pattern(8 << 20, seed: 3)
      try device.write(bytes: bytes, at: 0)
      try device.sync()
      // A part of a block stays as it is.
      try device.giveBack(1 << 20 - 1..<7 << 20 + 1)
      try device.giveBack(100..<200)
      #expect(try device.bytes(at: 0, count: 1 << 20) == Array(bytes[..<(1 << 20)]))
      #expect(try device.bytes(at: 7 << 20, count: 1 << 20) == Array(bytes[(7 << 20)...]))
      try device.write(bytes: [9], at: 3 << 20)
      #expect(try device.bytes(at: 3 << 20, count: 1) == [9])
      expectFailure(.discard, EINVAL) { try device.giveBack(0..<9 << 20) }
    }
  }
}
