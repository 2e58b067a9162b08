import Devices
import ExtentFS
import LacunaTestSupport
import Testing

@Suite struct EngineVolumeTests {
  @Test func `names that differ in their normalisation alone are two volumes`() throws {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
    var format = FormatOptions()
    format.journalByteCount = 65536
    try Engine.format(device, format)
    // The same letter in one scalar and in two: equal as strings.
    let names = ["\u{FC}bung", "u\u{308}bung"]
    #expect(names[0] == names[1])
    for opening in 0..<2 {
      let engine = try Engine.open(device, EngineOptions()).engine
      for (index, name) in names.enumerated() {
        if opening == 0 {
          let missing = try engine.openVolume(named: name)
          #expect(missing == nil)
          _ = try engine.createVolume(named: name, byteCount: 5000 + UInt64(index), createdSeconds: 0)
        }
        #expect(try engine.openVolume(named: name)?.byteCount == 5000 + UInt64(index))
      }
      #expect(throws: ExtentFSError.self) { try engine.createVolume(named: names[1], byteCount: 1, createdSeconds: 0) }
      try engine.close()
    }
    #expect(try StoreCheck.findings(on: device) == [])
  }
}
