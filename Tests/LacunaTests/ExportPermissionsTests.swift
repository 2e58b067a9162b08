import LacunaTestSupport
import Testing

@testable import Lacuna

@Suite struct `Which exports clients may open` {
  @Test(arguments: [
    ("vm1", ["vm1"], ["vm", "vm12", "vm1@a", "vm1+", "VM1", "", "vm1\u{301}", "vm1\0"]),
    ("job/*", ["job/", "job/42", "job/a.b"], ["job", "job/42/x", "job/42@a", "job/42+", "xjob/42"]),
    ("job/**", ["job/42", "job/42/x", "job/42@a", "job/42@a+x"], ["job", "jobs/1"]),
    ("golden@1+*", ["golden@1+", "golden@1+x"], ["golden@1", "golden@10+x", "golden@1+x+y", "golden@1+x/y"]),
    ("*", ["vm1", "a..b"], ["a/b", "vm1@a", "vm1+"]),
    ("**", ["vm1", "a/b@c+d", "\u{301}"], []),
    ("***", ["a/b"], []),
    ("v*1@*", ["v1@", "vm1@a", "v11@x"], ["vm1", "v/1@a"]),
    ("*a*a*a*b", ["aaab", "xaxaxaxb"], ["aab", "aaabc"]),
    ("", [], []),
  ])
  func `a pattern stands for names to the byte`(_ pattern: String, _ those: [String], _ others: [String]) throws {
    if pattern.isEmpty {
      for nothing in ["", ":ro"] { #expect(throws: LacunaError.self) { try ExportPattern(nothing) } }
      return
    }
    let pattern = try ExportPattern(pattern)
    for name in those { #expect(pattern.matches(name), "\(name)") }
    for name in others { #expect(!pattern.matches(name), "\(name)") }
  }

  @Test(arguments: ["vm1:rw", "vm1:", "a:b", "a:b:ro", ":"])
  func `a colon is for reading only`(_ text: String) {
    let error = #expect(throws: LacunaError.self) { try ExportPattern(text) }
    #expect(error?.code == .invalidParameter)
  }

  /// Against the plainest way to say what a pattern means.
  @Test func `patterns of all kinds stand for what a search by hand finds`() throws {
    try withSeededGenerator { generator in
      func text(_ letters: [Character], _ lengths: ClosedRange<Int>) -> [Character] {
        (0..<Int.random(in: lengths, using: &generator)).map { _ in
          letters[Int.random(in: letters.indices, using: &generator)]
        }
      }
      func isMatch(_ pattern: ArraySlice<Character>, _ name: ArraySlice<Character>) -> Bool {
        guard let first = pattern.first else { return name.isEmpty }
        guard first == "*" else { return name.first == first && isMatch(pattern.dropFirst(), name.dropFirst()) }
        let stars = pattern.prefix { $0 == "*" }.count
        for count in 0...name.count {
          if count > 0, stars == 1, "/+".contains(name[name.startIndex + count - 1]) { break }
          if isMatch(pattern.dropFirst(stars), name.dropFirst(count)) { return true }
        }
        return false
      }
      var matchCount = 0
      for _ in 0..<20_000 {
        let (pattern, name) = (text(["a", "b", "/", "+", "*", "*"], 1...6), text(["a", "b", "/", "+"], 0...5))
        let expected = isMatch(pattern[...], name[...])
        matchCount += expected ? 1 : 0
        try check(
          try ExportPattern(String(pattern)).matches(String(name)) == expected,
          "\(String(pattern)) and '\(String(name))'")
      }
      try check(matchCount > 500, "\(matchCount) matches are too few to tell anything")
    }
  }

  @Test func `what no pattern names is refused, and writing needs one that allows it`() throws {
    var permissions = ExportPermissions()
    #expect(permissions.permission(for: "vm1@a+x") == .writing)
    permissions.allow(try ExportPattern("vm1:ro"))
    permissions.allow(try ExportPattern("job/*"))
    permissions.allow(try ExportPattern("job/1:ro"))
    #expect(permissions.permission(for: "vm1") == .reading)
    #expect(permissions.permission(for: "job/1") == .writing)
    #expect(permissions.permission(for: "vm2") == nil)
    #expect(permissions.permission(for: "vm1@a") == nil)
    #expect(permissions.permission(for: "") == nil)
  }

  @Test func `a difference is for those who may read both of its snapshots`() throws {
    var permissions = ExportPermissions()
    permissions.allow(try ExportPattern("vm1@b*"))
    permissions.allow(try ExportPattern("vm1@c1"))
    #expect(permissions.permission(for: "vm1@b1..b2") == .reading)
    #expect(permissions.permission(for: "vm1@b1..c1") == .reading)
    #expect(permissions.permission(for: "vm1@b1..c2") == nil)
    #expect(permissions.permission(for: "vm1@a..b1") == nil)
    #expect(permissions.permission(for: "vm1@b1") == .writing)
  }
}
