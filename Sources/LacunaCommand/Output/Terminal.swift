internal import Glibc
internal import Lacuna

/// Where the program's output goes, and what is known of the terminal.
enum Terminal {
  /// Whether a person may be asked.
  static var canAsk: Bool { isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1 }

  /// Whether what goes to standard error is seen at once.
  static var showsErrors: Bool { isatty(STDERR_FILENO) == 1 }

  /// The columns of the terminal on standard error; 80 where they are unknown.
  static var columnCount: Int {
    var size = winsize()
    // Safe: the kernel fills in a structure of this type, which outlives the call.
    let status = unsafe ioctl(STDERR_FILENO, UInt(TIOCGWINSZ), &size)
    return status == 0 && size.ws_col > 0 ? Int(size.ws_col) : 80
  }

  /// Writes results, lines with their ends.
  ///
  /// - Throws: `Failure` where they cannot be written, as on a full disk: who reads them must not take a part for all.
  static func write(_ text: String) throws {
    try write(text.visibleInLines, to: STDOUT_FILENO)
  }

  /// Writes what is no result: messages, questions. That nobody sees it is no failure.
  static func writeMessage(_ text: String) { try? write(text.visibleInLines, to: STDERR_FILENO) }

  /// Says something in one line, whatever is in it.
  static func say(_ text: String) { writeMessage("lacuna: \(text.visible)\n") }

  /// Says what the user should know though all went well.
  static func writeWarning(_ text: String) { say("warning: \(text)") }

  /// Puts `text` in place of the line that the cursor is in; nil for nothing.
  static func replaceLine(by text: String?) {
    try? write("\r" + (text ?? "").visible + "\u{1B}[K", to: STDERR_FILENO)
  }

  /// The next line of standard input without its end; nil at its end.
  static func readAnswer() -> String? { readLine() }

  private static func write(_ text: String, to descriptor: Int32) throws {
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
      let count = unsafe bytes.withUnsafeBytes { buffer in
        // Safe: the buffer outlives the call, and the piece stays inside it.
        unsafe Glibc.write(descriptor, buffer.baseAddress.map { unsafe $0 + done }, buffer.count - done)
      }
      if count >= 0 {
        done += count
      } else if errno != EINTR {
        throw Failure("cannot write the output: \(Process.text(ofError: errno))")
      }
    }
  }
}
