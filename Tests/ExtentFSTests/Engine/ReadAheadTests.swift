import Bytes
import Devices
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What a volume asks its device to have ready, and what it does not.
@Suite struct ReadAheadTests {
  private typealias Device = WishDevice<MemoryDevice>

  private func withVolume(
    _ byteCount: UInt64, _ body: (Device, Engine, DiskVolume) throws -> Void
  ) throws {
    let device = Device(try MemoryDevice(byteCount: 0, maximumByteCount: 256 << 20))
    var format = FormatOptions()
    format.journalByteCount = 1 << 20
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    try body(device, engine, try engine.createVolume(named: "v", byteCount: byteCount, createdSeconds: 0))
    try engine.close()
  }

  private func write(_ volume: DiskVolume, _ range: Range<UInt64>) throws {
    try pattern(Int(range.upperBound - range.lowerBound), seed: 1).withUnsafeBytes {
      try volume.write($0, at: range.lowerBound)
    }
  }

  /// The bytes of the device at which `forEachMapping` says that the data of `range` lies.
  private func places(_ volume: DiskVolume, _ range: Range<UInt64>) throws -> [Range<UInt64>] {
    var places: [Range<UInt64>] = []
    try volume.forEachMapping(in: range) { bytes, _, offset in
      if let offset { places.append(offset..<offset + (bytes.upperBound - bytes.lowerBound)) }
      return true
    }
    return places
  }

  @Test(arguments: [false, true])
  func `what is asked for is what lies in the range, and no hole`(isMerged: Bool) throws {
    try withVolume(1 << 30) { device, engine, volume in
      try write(volume, 0..<40_960)
      try write(volume, 81_920..<90_000)
      try write(volume, (1 << 29)..<(1 << 29) + 4096)
      try volume.zero(in: 8192..<16_384, keepsSpace: true)
      if isMerged { try engine.checkpoint() }
      for range in [0..<1 << 30, 4096..<20_000, 100..<101, 40_960..<81_920, 85_000..<85_000, 1 << 29..<1 << 30] {
        let range = UInt64(range.lowerBound)..<UInt64(range.upperBound)
        let expected = try places(volume, range)
        device.forget()
        try volume.readAhead(in: range)
        #expect(device.wishes == expected, "\(range)")
      }
    }
  }

  @Test func `a request for more than the bound has the first part of it, to the byte`() throws {
    let most = DiskVolume.readAheadByteCountMax
    try withVolume(most * 4) { device, engine, volume in
      let piece: UInt64 = 1 << 20
      for start in stride(from: 0, to: most + 4 * piece, by: Int(piece)) { try write(volume, start..<start + piece) }
      let range = 500..<most * 4
      let expected = try places(volume, 500..<500 + most)
      device.forget()
      try volume.readAhead(in: range)
      #expect(device.wishes == expected)
    }
  }

  @Test func `behind the end, and of what is gone, it is refused`() throws {
    try withVolume(1 << 20) { device, engine, volume in
      try write(volume, 0..<4096)
      device.forget()
      let error = #expect(throws: ExtentFSError.self) { try volume.readAhead(in: 0..<1 << 20 + 1) }
      #expect(error?.code == .outOfRange)
      try engine.delete(["v"], force: true)
      let gone = #expect(throws: ExtentFSError.self) { try volume.readAhead(in: 0..<4096) }
      #expect(gone?.code == .deleted)
      #expect(device.wishes == [])
    }
  }
}

/// A device that remembers what it was asked to have ready.
private final class WishDevice<Base: BlockDevice>: BlockDevice {
  private let base: Base
  private let wished = Locked<[Range<UInt64>]>([])

  init(_ base: Base) { self.base = base }

  var wishes: [Range<UInt64>] { wished.withLock { $0 } }
  func forget() { wished.withLock { $0 = [] } }

  var byteCount: UInt64 { base.byteCount }
  func readAhead(_ range: Range<UInt64>) { wished.withLock { $0.append(range) } }
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
