import Devices
import Foundation
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// The reader that was written from docs/format.md alone, on stores whose volumes share blocks.
@Suite(.enabled(if: hasPython, "there is no python3"), .slow)
struct SharingReaderTests {
  private func withFile(_ forge: StoreForge, _ body: (_ path: String, _ directory: String) throws -> Void) throws {
    try forge.finish()
    try withTestDirectory { directory in
      try Data(try forge.contents()).write(to: URL(fileURLWithPath: directory + "/store"))
      try body(directory + "/store", directory)
    }
  }

  @Test func `it finds a store with snapshots and clones sound, with the same accounts`() throws {
    let (forge, disk, _, clone) = try StoreForge.sample()
    forge.change(disk) { ($0.reservationBlocks, $0.quotaBlocks) = (400, 400) }
    let deleted = try forge.clone(clone, "gone")
    forge.change(deleted) { ($0.kind, $0.name) = (.deleted, "") }
    let throwaway = try forge.clone(disk, "away")
    forge.change(throwaway) { ($0.isThrowaway, $0.name) = (true, "") }
    try withFile(forge) { path, directory in
      let check = try runReader(path, "check")
      #expect(check.status == 0, "\(check.output)")
      let report = try StoreCheck.run(on: forge.device)
      #expect(report.findings == [])
      let accounts = report.accounts.map {
        "\($0.inode) \($0.mapped) \($0.reserved) \($0.exclusiveData) \($0.exclusiveNodes)"
      }
      #expect(try runReader(path, "space").output.split(separator: "\n").map(String.init) == accounts)
      let list = try runReader(path, "list").output
      #expect(list.contains("2 snapshot 1024000 disk@monday\n"), "\(list)")
      #expect(list.contains("\(deleted) deleted") && list.contains("\(throwaway) throwaway"), "\(list)")

      let engine = try Engine.open(forge.device, EngineOptions(), readOnly: true).engine
      for name in ["disk", "disk@monday", "clone", "small@a.b"] {
        #expect(try runReader(path, "cat", name, directory + "/out").status == 0)
        let volume = try #require(try engine.openVolume(named: name))
        var bytes = [UInt8](repeating: 0, count: Int(volume.byteCount))
        try bytes.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) }
        #expect(try Data(bytes) == Data(contentsOf: URL(fileURLWithPath: directory + "/out")), "\(name)")
      }
    }
  }

  @Test(arguments: SharingCheckTests.damages)
  func `it notices what is wrong with what volumes share`(_ damage: SharingCheckTests.Damage) throws {
    let (forge, disk, _, clone) = try StoreForge.sample()
    try damage.change(forge, disk, clone)
    try withFile(forge) { path, _ in
      let check = try runReader(path, "check")
      #expect(check.status == 1 && !check.output.contains("Traceback"), "\(check.output)")
    }
  }
}
