internal import Lacuna

/// Text in columns, as wide as they need.
struct Table {
  enum Alignment { case left, right }

  private let columns: [(title: String, alignment: Alignment)]
  private var rows: [[String]] = []

  init(_ columns: [(title: String, alignment: Alignment)]) { self.columns = columns }

  /// Adds a row, with a cell for each column.
  mutating func add(_ cells: [String]) {
    precondition(cells.count == columns.count, "a row has a cell for each column")
    rows.append(cells.map(\.visible))
  }

  /// The lines with their ends, the titles first; a line has no blanks at its end.
  var text: String {
    let titles = columns.map(\.title)
    let widths = columns.indices.map { index in ([titles] + rows).map { $0[index].count }.max() ?? 0 }
    return ([titles] + rows).map { row in
      var line = ""
      for (index, cell) in row.enumerated() {
        if index > 0 { line += "  " }
        let blanks = String(repeating: " ", count: widths[index] - cell.count)
        line += columns[index].alignment == .left ? cell + blanks : blanks + cell
      }
      while line.last == " " { line.removeLast() }
      return line + "\n"
    }.joined()
  }
}

/// `name: value` lines with the values below each other.
struct FactSheet {
  private var facts: [(name: String, value: String)] = []

  mutating func add(_ name: String, _ value: String) { facts.append((name, value.visible)) }

  /// The same where there is a value.
  mutating func add(_ name: String, _ value: String?) {
    if let value { add(name, value) }
  }

  var text: String {
    let width = facts.map(\.name.count).max() ?? 0
    return facts.map { name, value in
      name + ":" + String(repeating: " ", count: width - name.count + 1) + value + "\n"
    }.joined()
  }
}
