import Bytes
import Devices
import Extents
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What a store makes of the units in which its device works.
@Suite struct DeviceGeometryTests {
  /// A device in memory with units of its own.
  private struct CoarseDevice: BlockDevice {
    var base: MemoryDevice
    var geometry: DeviceGeometry
    var byteCount: UInt64 { base.byteCount }

    func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
      try base.read(into: buffer, at: offset)
    }
    func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
      try base.write(buffer, at: offset)
    }
    func sync() throws(DeviceError) { try base.sync() }
    func discard(_ range: Range<UInt64>) throws(DeviceError) { try base.discard(range) }
    func grow(to byteCount: UInt64) throws(DeviceError) { try base.grow(to: byteCount) }
  }

  @Test(arguments: [4096, 65_536, 1_048_576, 1_073_741_824] as [UInt64])
  func `what the device cannot give back alone is not asked for`(granularity: UInt64) throws {
    let piece = min(max(granularity, 65_536), 4_194_304)
    let blockSize = try #require(BlockSize(byteCount: 1024))
    let geometry = try StoreGeometry(blockSize: blockSize, journalByteCount: 65536)
    let device = CoarseDevice(
      base: try MemoryDevice(byteCount: 32 << 20), geometry: DeviceGeometry(discardByteCount: granularity))
    let space = try SpaceMap(
      device: device, geometry: geometry, blockCount: 32 << 10, usedBlockCount: 0, growingUpTo: nil,
      records: GroupRecords { _ in nil })
    // Blocks that begin and end in the middle of a piece.
    let run = try space.allocate(upTo: 7000, purpose: .data)
    try space.free(run)
    let trim = try #require(space.nextTrim(.small))
    #expect(blockSize.offset(of: trim.block) % piece == 0 && blockSize.offset(of: trim.count) % piece == 0, "\(trim)")
  }

  @Test(arguments: [UInt64(1), 512, 4096, 8192, 65536])
  func `a device whose sectors are longer than a block of the journal is refused`(sector: UInt64) throws {
    let device = CoarseDevice(
      base: try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20),
      geometry: DeviceGeometry(sectorByteCount: sector))
    var format = FormatOptions()
    format.journalByteCount = 65536
    if sector <= 4096 {
      try Engine.format(device, format)
    } else {
      let error = #expect(throws: ExtentFSError.self) { try Engine.format(device, format) }
      #expect(error?.code == .invalidArgument)
      #expect(device.byteCount == 0)
    }
  }

  @Test func `units are powers of two`() {
    let units = DeviceGeometry(sectorByteCount: 0, discardByteCount: 5000)
    #expect(units.sectorByteCount == 1 && units.discardByteCount == 8192)
    #expect(DeviceGeometry(sectorByteCount: 512, discardByteCount: .max).sectorByteCount == 512)
    #expect(DeviceGeometry(discardByteCount: .max).discardByteCount == 1 << 63)
    #expect(DeviceGeometry(discardByteCount: 4097).discardByteCount == 8192)
  }
}
