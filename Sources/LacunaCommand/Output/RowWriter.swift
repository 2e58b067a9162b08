/// Prints rows as they come, as lines of a table or as the elements of a JSON array: there may be millions.
struct RowWriter {
  private let json: Bool
  private let close: String
  private var buffer: String
  private(set) var count = 0

  /// - Parameters:
  ///   - open: what comes before the first element of JSON.
  ///   - close: what comes after the last one, with the end of the line.
  ///   - title: the table's first line, with its end.
  init(json: Bool, open: String, close: String, title: String) {
    self.json = json
    self.close = close
    buffer = json ? open : title
  }

  /// Adds a row: `value` as JSON, else the line that `text` makes.
  mutating func add(_ value: some Encodable, _ text: () -> String) throws {
    if json {
      var line = try JSONOutput.line(value)
      line.removeLast()
      buffer += (count == 0 ? "" : ",\n") + line
    } else {
      buffer += text()
    }
    count += 1
    if buffer.utf8.count > 65536 { try flush() }
  }

  /// Prints the end.
  mutating func finish() throws {
    if json { buffer += close }
    try flush()
  }

  private mutating func flush() throws {
    try Terminal.write(buffer)
    buffer = ""
  }
}

/// Columns of a fixed width, as `qemu-img map` has them, so that rows can be printed before the last one is known.
enum HexTable {
  static func row(_ cells: [String]) -> String {
    var line = cells.map { $0 + String(repeating: " ", count: max(16 - $0.count, 1)) }.joined()
    while line.last == " " { line.removeLast() }
    return line + "\n"
  }

  static func hex(_ number: UInt64) -> String { number == 0 ? "0" : "0x" + String(number, radix: 16) }
}
