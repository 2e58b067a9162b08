import Testing

@testable import Lacuna

@Suite struct `Names of exports` {
  @Test(arguments: [
    ("vm1", ExportName.stored("vm1")),
    ("vms/web1", .stored("vms/web1")),
    ("vm1@monday", .stored("vm1@monday")),
    ("a..b", .stored("a..b")),
    ("vm1+", .throwaway(of: "vm1", label: nil)),
    ("vms/web1@monday+", .throwaway(of: "vms/web1@monday", label: nil)),
    ("vm1+test-1", .throwaway(of: "vm1", label: "test-1")),
    ("vm1@monday+a.b_c", .throwaway(of: "vm1@monday", label: "a.b_c")),
    ("vm1@a..b", .difference(from: "vm1@a", to: "vm1@b")),
    ("vms/web1@2026-11-01..2026-11-02", .difference(from: "vms/web1@2026-11-01", to: "vms/web1@2026-11-02")),
    ("v..1@a..b", .difference(from: "v..1@a", to: "v..1@b")),
  ])
  func `a name says what it stands for`(_ text: String, _ expected: ExportName) throws {
    #expect(try ExportName(text) == expected)
  }

  @Test(arguments: [
    ("+", "before the +"), ("+x", "before the +"), ("vm1++", "after the +"), ("vm1+a+b", "after the +"),
    ("vm1+a/b", "after the +"), ("vm1+ä", "after the +"), ("vm1+a b", "after the +"),
    ("vm1@a..", "VOLUME@OLDER..NEWER"), ("vm1@..b", "VOLUME@OLDER..NEWER"), ("vm1@..", "VOLUME@OLDER..NEWER"),
    ("@a..b", "VOLUME@OLDER..NEWER"), ("vm1@a..b+", "read-only"), ("vm1@a..b+x", "read-only"),
  ])
  func `a name that can be no export says why`(_ text: String, _ words: String) {
    let error = #expect(throws: LacunaError.self) { try ExportName(text) }
    #expect(error?.code == .noSuchVolume)
    #expect(error?.description.contains(words) == true, "\(String(describing: error))")
    #expect(error?.description.contains("'\(text)'") == true)
  }

  @Test func `the message for a long name is short`() {
    let error = #expect(throws: LacunaError.self) { try ExportName("+" + String(repeating: "x", count: 4096)) }
    #expect((error?.description.utf8.count ?? .max) < 200)
  }
}
