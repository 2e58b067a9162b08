import Devices
import LacunaTestSupport
import Testing

/// What every `BlockDevice` promises, on every kind that the product has.
@Suite struct BlockDeviceConformanceTests {
  @Test(arguments: BlockDeviceConformance.promises, DeviceKind.available)
  func `a device keeps its promise`(promise: Promise<DeviceKind>, kind: DeviceKind) throws { try promise.test(kind) }

  @Test func `storage that a file has and was never written is found, where the file system tells`() throws {
    try DeviceKind.file.withDevice(byteCount: 4096) { device in
      try device.grow(to: 9 << 20)
      let held = try device.allAllocated(in: 0..<9 << 20).reduce(0) { $0 + $1.upperBound - $1.lowerBound }
      #expect(held >= 8 << 20 || held == 0, "\(held)")
      try device.discard(1 << 20..<9 << 20)
      #expect(try device.allAllocated(in: 1 << 20..<9 << 20) == [])
    }
  }

  @Test func `a file has bytes, and a block device sectors`() throws {
    try DeviceKind.file.withDevice(byteCount: 4096) { device in
      #expect(device.geometry == DeviceGeometry(sectorByteCount: 1, discardByteCount: 4096))
    }
    guard LoopDevice.isPossible else { return }
    try DeviceKind.loop.withDevice(byteCount: 65_536) { device in
      #expect([512, 4096].contains(device.geometry.sectorByteCount), "\(device.geometry)")
      #expect(device.geometry.discardByteCount >= device.geometry.sectorByteCount, "\(device.geometry)")
    }
  }
}
