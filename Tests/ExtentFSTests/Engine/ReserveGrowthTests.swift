import Devices
import ExtentFS
import LacunaTestSupport
import Testing

@Suite struct ReserveGrowthTests {
  /// The reserve is for nodes. While a checkpoint makes new data part of the trees, that must not be taken for nodes.
  @Test func `writers beside the first checkpoint of much data do not make the device grow out of proportion`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 1 << 30)
    var format = FormatOptions()
    format.blockByteCount = 1024
    format.journalByteCount = 4 << 20
    try Engine.format(device, format)
    let engine = try Engine.open(device, EngineOptions()).engine
    let byteCount = 48 << 20
    let volume = try engine.createVolume(named: "disk", byteCount: UInt64(byteCount), createdSeconds: 0)
    let megabyte = [UInt8](repeating: 0xA5, count: 1 << 20)
    for offset in stride(from: 0, to: byteCount, by: 1 << 20) {
      try megabyte.withUnsafeBytes { try volume.write($0, at: UInt64(offset)) }
    }
    try inThreads(3) { index in
      if index == 0 { return try engine.checkpoint() }
      var generator = SeededGenerator(seed: UInt64(index))
      for _ in 0..<3000 {
        let block = generator.number(below: byteCount / 1024)
        try megabyte[..<1024].withUnsafeBytes { try volume.write($0, at: UInt64(block) * 1024) }
      }
    }
    try engine.close()
    #expect(device.byteCount < 3 * UInt64(byteCount))
  }
}
