import FoundationEssentials
import Testing

@testable import Lacuna

@Suite struct `Text of others` {
  /// What is not seen as it is, of each kind, with its escape.
  static let hidden: [(text: String, escape: String)] = [
    ("\u{0}", "\\u{0}"), ("\u{7}", "\\u{7}"), ("\u{1B}", "\\u{1b}"), ("\r", "\\r"), ("\r\n", "\\r\\n"),
    ("\u{7F}", "\\u{7f}"), ("\u{9B}", "\\u{9b}"), ("\u{85}", "\\u{85}"), ("\u{2028}", "\\u{2028}"),
    ("\u{2029}", "\\u{2029}"), ("\u{202A}", "\\u{202a}"), ("\u{202E}", "\\u{202e}"), ("\u{2066}", "\\u{2066}"),
    ("\u{2069}", "\\u{2069}"), ("\u{200E}", "\\u{200e}"), ("\u{200F}", "\\u{200f}"), ("\u{61C}", "\\u{61c}"),
    ("\u{200B}", "\\u{200b}"), ("\u{200D}", "\\u{200d}"), ("\u{FEFF}", "\\u{feff}"), ("\u{AD}", "\\u{ad}"),
    ("\u{E0041}", "\\u{e0041}"), ("\u{E000}", "\\u{e000}"), ("\u{FFFE}", "\\u{fffe}"), ("\u{378}", "\\u{378}"),
    ("\u{3164}", "\\u{3164}"), ("\u{FE0F}", "\\u{fe0f}"), ("\u{34F}", "\\u{34f}"),
  ]

  @Test func `is shown with everything that one would not see`() {
    for (text, escape) in Self.hidden {
      #expect("a\(text)b".visible == "a\(escape)b", "\(escape)")
      #expect("a\(text)b".visibleInLines == "a\(escape.hasSuffix("\\n") ? "\\r\n" : escape)b", "\(escape)")
    }
    #expect("a\nb\tc".visible == "a\\nb\\tc")
    #expect("a\nb\tc".visibleInLines == "a\nb\tc")
  }

  @Test func `stays as it is where one sees it`() {
    for text in [
      "", "vm1@monday", "größe", "gro\u{308}ße", "名前", "שלום", "ไม้", "💾", "it's \"this\" \\ that", "\u{FFFD}",
    ] {
      // As scalars: a decomposed letter must stay decomposed.
      #expect(Array(text.visible.unicodeScalars) == Array(text.unicodeScalars))
      #expect(Array(text.visibleInJSON.unicodeScalars) == Array(text.unicodeScalars))
    }
  }

  @Test func `has no mark on what is no letter`() {
    #expect("'\u{301}".visible == "'\\u{301}")
    #expect("\"\u{301}\u{302}a\u{301}".visible == "\"\\u{301}\\u{302}a\u{301}")
    #expect("\u{20DD}".visible == "\\u{20dd}")
    #expect("\n\u{301}".visibleInLines == "\n\\u{301}")
  }

  @Test func `is made visible once, and not again`() {
    for (text, _) in Self.hidden { #expect("a\(text)b".visible.visibleInLines == "a\(text)b".visible) }
  }

  @Test func `is the same for whoever reads the JSON`() throws {
    for (text, _) in Self.hidden + [("'\u{301}", ""), ("\"\u{301}", ""), ("\\\u{202E}", "")] {
      let error = LacunaError(.noSuchVolume, "there is no volume '\(text)'")
      let line = ControlAnswer.error(RPCError(error), to: .number(1))
      let shown = String(decoding: line, as: UTF8.self)
      #expect(Array(shown.visibleInLines.utf8) == line, "\(shown)")
      #expect(!shown.unicodeScalars.contains { !$0.isASCII }, "\(shown)")
      let back = try JSONDecoder().decode(Answer.self, from: Data(line)).error
      #expect(Array(back.message.utf8) == Array(error.description.utf8), "\(shown)")
    }
  }

  private struct Answer: Decodable {
    var error: RPCError
  }
}
