internal import Lacuna

// By bytes, never by characters: in Swift, an apostrophe with a mark above it is a character of its own, and no apostrophe.
extension String {
  /// The same text as one word of a command line that people copy from a terminal into a shell.
  ///
  /// Between apostrophes where all of it can be seen, which every shell understands. What cannot be seen would not be copied as it
  /// is, and could pass for something else: such a word is `$'...'` with octal escapes of bytes, as bash, zsh, ksh and POSIX since
  /// 2024 read it back.
  var shellQuoted: String { visible == self ? plainlyQuoted : escapedWord }

  /// The same as one word for `/bin/sh`, whatever is in it.
  var plainlyQuoted: String {
    let isPlain = !isEmpty && utf8.allSatisfy { $0.isASCIILetterOrDigit || "/._-=:+@%,".utf8.contains($0) }
    if isPlain { return self }
    return "'" + unicodeScalars.map { $0 == "'" ? "'\\''" : String($0) }.joined() + "'"
  }

  private var escapedWord: String {
    let bytes = utf8.map { byte in
      switch byte {
      case UInt8(ascii: "'"), UInt8(ascii: "\\"): return "\\" + String(Unicode.Scalar(byte))
      case UInt8(ascii: "\n"): return "\\n"
      case 0x20..<0x7F: return String(Unicode.Scalar(byte))
      default:
        let digits = String(byte, radix: 8)
        return "\\" + String(repeating: "0", count: 3 - digits.utf8.count) + digits
      }
    }
    return "$'" + bytes.joined() + "'"
  }
}

extension UInt8 {
  var isASCIILetterOrDigit: Bool {
    switch self {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    default: false
    }
  }
}
