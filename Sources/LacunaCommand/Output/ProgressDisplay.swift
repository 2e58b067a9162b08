internal import ArgumentParser
internal import Glibc

/// How progress is shown on standard error.
enum ProgressStyle: String, CaseIterable, ExpressibleByArgument {
  /// A bar on a terminal, else nothing.
  case auto
  case bar, json, none
}

/// How far long work has come.
struct WorkDone: Equatable {
  /// What is being done, for people: `reading metadata`.
  var phase: String
  var done: UInt64
  /// All there is to do; nil where that is unknown.
  var total: UInt64?
  /// What is counted: `bytes`, `blocks` or `volumes`.
  var unit: String
}

/// Shows on standard error how far long work has come, at most ten times a second, and tidies up after it.
struct ProgressDisplay {
  private let style: ProgressStyle
  private let delay: Double
  private var shown: WorkDone?
  private var lastSeconds: Double
  private var hasBar = false

  /// - Parameter style: `auto` is a bar where standard error is a terminal.
  init(_ style: ProgressStyle) {
    self.style = style == .auto ? (Terminal.showsErrors ? .bar : .none) : style
    // Work that is soon done needs no bar, which would only flicker.
    delay = style == .auto ? 0.3 : 0
    lastSeconds = Self.now() - 0.1 + delay
  }

  /// Shows `work`, unless something was shown a moment ago.
  mutating func show(_ work: WorkDone) {
    guard style != .none, work != shown else { return }
    let now = Self.now()
    guard now - lastSeconds >= 0.1 else { return }
    lastSeconds = now
    draw(work)
  }

  /// Ends the display: JSON has the last state for certain, a bar goes away.
  mutating func finish(_ work: WorkDone? = nil) {
    if style == .json, let work, work != shown { draw(work) }
    if hasBar { Terminal.replaceLine(by: nil) }
    hasBar = false
  }

  private mutating func draw(_ work: WorkDone) {
    shown = work
    if style == .json {
      Terminal.writeMessage(Self.jsonLine(work))
    } else {
      hasBar = true
      Terminal.replaceLine(by: Self.bar(work, columnCount: Terminal.columnCount))
    }
  }

  /// One line such as `reading metadata [=====>     ]  45%`, shorter than the terminal is wide.
  static func bar(_ work: WorkDone, columnCount: Int) -> String {
    let phase = phaseText(work.phase)
    guard let total = work.total, total > 0 else {
      return String("\(phase) \(work.done) \(work.unit)".prefix(columnCount - 1))
    }
    let part = min(Double(work.done) / Double(total), 1)
    let percent = "\(Int(part * 100))%"
    let end = String(repeating: " ", count: max(5 - percent.count, 1)) + percent
    let width = min(columnCount - 1 - phase.count - 3 - end.count, 50)
    guard width >= 5 else { return String((phase + end).prefix(columnCount - 1)) }
    let filled = Int(part * Double(width))
    let bar =
      filled == width
      ? String(repeating: "=", count: width)
      : String(repeating: "=", count: filled) + ">" + String(repeating: " ", count: width - filled - 1)
    return "\(phase) [\(bar)]\(end)"
  }

  /// A phase as a bar has it: a server may say anything. All of ours are ASCII, of which each character is one column wide.
  private static func phaseText(_ phase: String) -> String {
    String(phase.unicodeScalars.prefix(64).map { (0x20..<0x7F).contains($0.value) ? Character($0) : "?" })
  }

  /// `{"progress":{"done":45,"phase":"reading metadata","total":100,"unit":"blocks"}}`; no total where it is unknown.
  private static func jsonLine(_ work: WorkDone) -> String {
    struct Line: Encodable {
      struct Progress: Encodable {
        var phase: String
        var done: UInt64
        var total: UInt64?
        var unit: String
      }
      var progress: Progress
    }
    let line = Line(progress: Line.Progress(phase: work.phase, done: work.done, total: work.total, unit: work.unit))
    return (try? JSONOutput.line(line)) ?? ""
  }

  private static func now() -> Double {
    var time = timespec()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}
