internal import Glibc
internal import Lacuna

/// Passes what nbdkit writes to its standard error on to this process's, but not lines that repeat: a client can make nbdkit say the same
/// of any number of requests and handshakes.
final class LogRelay {
  /// Where nbdkit writes.
  let writeEnd: Int32
  /// Can be read from when there is something to pass on.
  let readEnd: Int32

  private var repeated = RepeatedLines()
  /// A line that has no end yet.
  private var pending: [UInt8] = []

  /// Longer lines are broken.
  private static let lineLengthMax = 8192
  /// How much is read at once, so that a flood does not keep this process from all else.
  private static let pieceLength = 65_536

  init() throws {
    (readEnd, writeEnd) = try Process.makePipe()
    _ = fcntl(readEnd, F_SETFL, O_NONBLOCK)
  }

  deinit {
    close(readEnd)
    close(writeEnd)
  }

  /// Passes on some of what there is, and what is due by now.
  ///
  /// - Returns: whether there was anything.
  @discardableResult
  func pass() -> Bool {
    let piece = unsafe [UInt8](unsafeUninitializedCapacity: Self.pieceLength) { buffer, count in
      // Safe: the buffer is ours for the length of the closure.
      count = unsafe max(read(readEnd, buffer.baseAddress, buffer.count), 0)
    }
    for byte in piece {
      if byte == UInt8(ascii: "\n") || pending.count >= Self.lineLengthMax { endLine() }
      if byte != UInt8(ascii: "\n") { pending.append(byte) }
    }
    write(repeated.takeDue(at: Self.now()))
    return !piece.isEmpty
  }

  /// Says something of this process's own, unless that repeats.
  func say(_ line: String) { write(repeated.take(line, at: Self.now())) }

  /// Passes on all there is, where nobody writes any more.
  func finish() {
    while pass() {}
    if !pending.isEmpty { endLine() }
    write(repeated.takeAll(at: Self.now()))
  }

  /// How long it is until something is due, if nothing comes before; nil where nothing will be.
  var millisecondsLeft: Int? {
    repeated.nextDue.map { due in
      let now = Self.now()
      return due <= now ? 0 : Int(clamping: due - now)
    }
  }

  private func endLine() {
    let line = String(decoding: pending, as: UTF8.self).visible
    pending.removeAll(keepingCapacity: true)
    write(Self.isDebugging(line) ? [line] : repeated.take(line, at: Self.now()))
  }

  /// Whether nbdkit says a line only because it was asked to say everything: "nbdkit: lacuna.3: debug: ...".
  private static func isDebugging(_ line: String) -> Bool {
    let words = line.split(separator: " ", maxSplits: 3)
    return words.first == "nbdkit:" && words.dropFirst().prefix(2).contains("debug:")
  }

  private func write(_ lines: [String]) {
    if !lines.isEmpty { Terminal.writeMessage(lines.map { "\($0)\n" }.joined()) }
  }

  private static func now() -> UInt64 {
    var time = timespec()
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
  }
}
