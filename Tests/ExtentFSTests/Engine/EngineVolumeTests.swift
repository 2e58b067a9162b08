import Devices
import ExtentFS
import LacunaTestSupport
import Testing

@Suite struct EngineVolumeTests {
  @Test(arguments: ["a", "vms/web1", "A-Z_0.9", "a/-b", "_-", "..a", "a..b", String(repeating: "x", count: 255)])
  func `names that a volume can have`(name: String) throws {
    try VolumeName.check(name, .volume)
  }

  @Test(
    arguments: [
      "", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a b", "a@b", "a+", "\u{FC}bung", "a\u{0}", "-", "-a", "--yes",
      "-a/b",
      String(repeating: "x", count: 256),
    ])
  func `names that no volume can have`(name: String) throws {
    #expect(throws: ExtentFSError.self) { try VolumeName.check(name, .volume) }
  }

  @Test(arguments: ["a@b", "vms/web1@2026-11-23_10.15", "a@x.y", "a@-b", "-a@b"])
  func `names that a snapshot can have`(name: String) throws {
    try VolumeName.check(name, .snapshot)
  }

  @Test(arguments: ["a", "@", "a@", "@b", "a@b@c", "a@b/c", "a@b..c", "a@.b", "a@b.", "a@b+", "a @b"])
  func `names that no snapshot can have`(name: String) throws {
    #expect(throws: ExtentFSError.self) { try VolumeName.check(name, .snapshot) }
  }
}
