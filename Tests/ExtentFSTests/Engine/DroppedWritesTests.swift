import Bytes
import Devices
import Foundation
import LacunaTestSupport
import SystemPackage
import Testing

@testable import ExtentFS

@Suite struct `Writes that recovery leaves out` {
  /// The warnings and details of opening a store of `counts.count` volumes, to each of which so many single blocks were written
  /// whose data was lost, after one that a flush covered.
  private func open(losing counts: [Int]) throws -> (warnings: [String], details: [String]) {
    try withTestDirectory { directory in
      var store = try FileStoreUnderTest(
        making: directory + "/store", blockByteCount: 4096, limit: 64 << 20, journalByteCount: 1 << 20)
      for (number, count) in counts.enumerated() {
        try store.addVolume("vm\(number)", byteCount: (count + 1) * 4096)
        try store.volumes[number].write([1], times: 4096, at: 0)
      }
      for volume in store.volumes { try volume.flush() }
      for (number, count) in counts.enumerated() {
        // Each second one, so that each is a record of its own; then those between.
        for block in Array(stride(from: 1, through: count, by: 2)) + Array(stride(from: 2, through: count, by: 2)) {
          try store.volumes[number].write([0xD7], times: 4096, at: UInt64(block) * 4096)
        }
      }
      // What the medium may hold after a power cut: all of the journal, and nothing of what no flush covered.
      var bytes = [UInt8](try Data(contentsOf: URL(fileURLWithPath: store.path)))
      try store.engine.close()
      for block in stride(from: 0, to: bytes.count - 4095, by: 4096)
      where bytes[block..<block + 4096].allSatisfy({ $0 == 0xD7 }) {
        bytes.replaceSubrange(block..<block + 4096, with: [UInt8](repeating: 0, count: 4096))
      }
      let path = directory + "/lost"
      try Data(bytes).write(to: URL(fileURLWithPath: path))
      let log = RecordingLog()
      var options = FileStoreUnderTest.options(limit: 64 << 20)
      options.logger = log.logger
      let (engine, warnings) = try Engine.open(try FileDevice(opening: FilePath(path)), options)
      for number in counts.indices {
        let found = try #require(try engine.openVolume(named: "vm\(number)")).contents()
        #expect(found == Data([UInt8](repeating: 1, count: 4096) + [UInt8](repeating: 0, count: counts[number] * 4096)))
      }
      try engine.close()
      return (warnings, log.lines.filter { $0.level == .debug }.map(\.text))
    }
  }

  @Test func `are told in one line, with their number and the volumes, and each to who asks for details`() throws {
    let (warnings, details) = try open(losing: [20, 0, 1000])
    #expect(
      warnings == [
        "1020 writes (4177920 bytes) that no flush had covered are left out, since the data did not reach the device: "
          + "1000 of 'vm2', 20 of 'vm0'"
      ])
    #expect(details.count == 1020 && Set(details).count == 1020)
    #expect(details.allSatisfy { $0.contains("is left out") })
  }

  @Test func `are told without all names where many volumes lost some`() throws {
    let (warnings, _) = try open(losing: [Int](repeating: 1, count: 12) + [2])
    #expect(warnings.count == 1)
    #expect(warnings.first?.hasPrefix("14 writes (57344 bytes)") == true, "\(warnings)")
    #expect(
      warnings.first?.hasSuffix(
        "2 of 'vm12', 1 of 'vm0', 1 of 'vm1', 1 of 'vm2', 1 of 'vm3', 1 of 'vm4', 1 of 'vm5', 1 of 'vm6', 5 of 5 more")
        == true, "\(warnings)")
  }

  @Test func `are told where it is one, and not where it is none`() throws {
    #expect(
      try open(losing: [1]).warnings == [
        "1 write (4096 bytes) that no flush had covered is left out, since the data did not reach the device: 1 of 'vm0'"
      ])
    let nothing = try open(losing: [0, 0])
    #expect(nothing.warnings == [] && nothing.details == [])
  }
}

extension DiskVolume {
  fileprivate func write(_ bytes: [UInt8], times count: Int, at offset: UInt64) throws {
    try [UInt8](repeating: bytes[0], count: count).withUnsafeBytes { try write($0, at: offset) }
  }
}
