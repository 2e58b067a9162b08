import Testing

@testable import Lacuna

@Suite struct `Paths` {
  @Test func `are read as the kernel reads them, whatever stands behind a slash`() {
    #expect("/\u{301}a".isAbsolutePath && "/".isAbsolutePath && !"a/".isAbsolutePath && !"".isAbsolutePath)
    #expect("/a/\u{301}b//c/".pathParts == ["a", "\u{301}b", "c"])
    #expect("a".pathParts == ["a"] && "//".pathParts == [])
  }
}
