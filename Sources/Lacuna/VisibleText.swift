/// How text that others wrote is shown: names from stores and clients, paths, what a server says, how a stranger's process is called.
///
/// A terminal, a log and their readers must not take such text for something else. So what would move a terminal's cursor or
/// change its colours, end a line, turn the direction of writing around, or not be seen at all is written as an escape such as
/// `\n` or `\u{202e}`. All output goes through here at its last step: `Terminal` in the command, the three functions of the plugin
/// that write to nbdkit's log, and the encoders of JSON. Names that are sentences' or tables' parts go through it before, since at
/// the last step nobody knows whose the end of a line was.
extension String {
  /// The same in one line. Nothing but what is seen is left as it is.
  package var visible: String { escaped(keepsLayout: false, as: .text) }

  /// The same for text that has lines of our own: ends of lines (`\n`) and tabs stay.
  package var visibleInLines: String { escaped(keepsLayout: true, as: .text) }

  /// JSON, made by an encoder, with the same scalars as `\uXXXX`: what is read from it is what it was.
  package var visibleInJSON: String { escaped(keepsLayout: true, as: .json) }

  private enum Escape { case text, json }

  private func escaped(keepsLayout: Bool, as escape: Escape) -> String {
    func staysAsLayout(_ value: UInt32) -> Bool { keepsLayout && (value == 0x0A || value == 0x09) }
    // Nearly everything is ASCII.
    guard !utf8.allSatisfy({ (0x20..<0x7F).contains($0) || staysAsLayout(UInt32($0)) }) else { return self }
    var result = UnicodeScalarView()
    var carriesMarks = false
    // By scalars: a character may have a quotation mark and a mark above it, or the two ends of a line.
    for scalar in unicodeScalars {
      if staysAsLayout(scalar.value) || !scalar.isHidden(behindCarrier: carriesMarks) {
        result.append(scalar)
        carriesMarks = scalar.carriesMarks
      } else {
        switch escape {
        case .text: result.append(contentsOf: scalar.textEscape.unicodeScalars)
        case .json: result.append(contentsOf: scalar.jsonEscape.unicodeScalars)
        }
        carriesMarks = false
      }
    }
    return String(result)
  }
}

extension Unicode.Scalar {
  /// Whether one does not see it, or not where it is: control characters; marks of direction, joiners and all else that formats; ends
  /// of lines and paragraphs; what has no meaning that all agree on; what fonts leave out; and combining marks that would lie on
  /// something other than a letter, as on a quotation mark.
  fileprivate func isHidden(behindCarrier: Bool) -> Bool {
    switch properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: true
    case .nonspacingMark, .enclosingMark, .spacingMark: !behindCarrier || properties.isDefaultIgnorableCodePoint
    default: properties.isDefaultIgnorableCodePoint
    }
  }

  /// Whether a combining mark after it is part of what one reads.
  fileprivate var carriesMarks: Bool {
    switch properties.generalCategory {
    case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter, .nonspacingMark,
      .enclosingMark, .spacingMark, .decimalNumber, .letterNumber, .otherNumber, .otherSymbol:
      true
    default: false
    }
  }

  fileprivate var textEscape: String {
    switch self {
    case "\n": "\\n"
    case "\r": "\\r"
    case "\t": "\\t"
    default: "\\u{\(String(value, radix: 16))}"
    }
  }

  fileprivate var jsonEscape: String {
    UTF16.encode(self).map { units in
      units.map { unit in
        let digits = String(unit, radix: 16)
        return "\\u" + String(repeating: "0", count: 4 - digits.utf8.count) + digits
      }.joined()
    } ?? ""
  }
}
