import FoundationEssentials
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What the check, and the independent reader, say of names in a store.
@Suite struct NameCheckTests {
  enum Verdict: Sendable {
    case fine, note, finding
  }

  private static let verdicts: [(name: String, verdict: Verdict)] = [
    ("vm1", .fine), ("vms/web-1.old", .fine), ("vm1@monday", .fine), ("-old", .note), ("a b", .note),
    ("größe", .note), ("$(touch x)", .note), ("`x`", .note), ("a'\u{301}", .note), ("vm1@a..b", .note), ("a:b", .note),
    ("/a", .finding), ("a/", .finding), ("a//b", .finding), ("../a", .finding), ("a/.", .finding), ("a\nb", .finding),
    ("a\r\nb", .finding), ("\u{1B}[31m", .finding), ("a\u{9B}", .finding), ("a\u{202E}b", .finding),
    ("a\u{2067}b", .finding), ("a\u{200B}", .finding), ("a\u{61C}", .finding), ("\u{FEFF}a", .finding),
    ("vm1@a\u{7F}", .finding), ("\u{E0041}a", .finding),
  ]

  @Test(.slow, arguments: verdicts)
  func `a name is fine, old or made to deceive`(_ name: String, _ verdict: Verdict) throws {
    let forge = try StoreForge()
    _ = forge.make(name, name.contains("@") ? .snapshot : .volume, blockCount: 10)
    try forge.finish()
    let report = try StoreCheck.run(on: forge.device)
    #expect(
      report.findings.count { $0.kind == .name && $0.text.contains("its name") } == (verdict == .finding ? 1 : 0),
      "\(report.findings)")
    #expect(report.findings.count == (verdict == .finding ? 1 : 0), "\(report.findings)")
    #expect(report.notes.count == (verdict == .note ? 1 : 0), "\(report.notes)")
    #expect(VolumeName.isForNew(name) == (verdict == .fine))
    // What nobody can have given is nothing that `create` gives either.
    if VolumeName.forgery(of: name) != nil { #expect(!VolumeName.isForNew(name)) }
    guard hasPython else { return }
    try withTestDirectory { directory in
      let path = "\(directory)/store"
      try Data(forge.contents()).write(to: URL(filePath: path))
      let found = try runReader(path, "check")
      #expect(found.output.contains("has a name that nobody gives") == (verdict == .finding), "\(found.output)")
      #expect(!found.output.dropLast().unicodeScalars.contains { $0.properties.generalCategory == .control })
    }
  }
}
