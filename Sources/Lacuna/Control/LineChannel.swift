internal import SystemPackage

/// One side of a connection on which each message is a line. One thread may read and one may write at a time.
final class LineChannel {
  /// Why no line came.
  enum Failure: Error {
    /// The other side hung up between two lines, or in the middle of one.
    case ended(midLine: Bool)
    /// A line is longer than it may be.
    case tooLong
    /// A line took too long to come, or to be taken.
    case tooSlow
    /// Nothing came for a long time.
    case idle
    case system(Errno)
  }

  let socket: Descriptor
  /// What was received, and is not yet handed out.
  private var pending: [UInt8] = []
  /// How much of it is known to have no newline.
  private var searchedCount = 0
  private static let pieceByteCount = 65_536

  init(_ socket: Descriptor) { self.socket = socket }

  /// The next line, without its newline.
  ///
  /// - Parameters:
  ///   - idleMilliseconds: how long to wait for its first byte; nil for ever.
  ///   - lineMilliseconds: how long to wait for the others; nil for ever.
  func readLine(
    byteCountMax: Int, idleMilliseconds: UInt32?, lineMilliseconds: UInt32?
  ) throws(Failure) -> [UInt8] {
    var deadline =
      pending.isEmpty
      ? idleMilliseconds.map(Instant.init(millisecondsFromNow:))
      : lineMilliseconds.map(Instant.init(millisecondsFromNow:))
    while true {
      if let newline = pending[searchedCount...].firstIndex(of: UInt8(ascii: "\n")) {
        guard newline < byteCountMax else { throw .tooLong }
        let line = Array(pending[..<newline])
        pending.removeFirst(newline + 1)
        searchedCount = 0
        return line
      }
      searchedCount = pending.count
      guard pending.count < byteCountMax else { throw .tooLong }
      let wasEmpty = pending.isEmpty
      guard try waiting(for: .reading, until: deadline) else { throw wasEmpty ? .idle : .tooSlow }
      try receive()
      if wasEmpty, !pending.isEmpty {
        deadline = lineMilliseconds.map(Instant.init(millisecondsFromNow:))
      } else if deadline?.millisecondsLeft == 0, !pending[searchedCount...].contains(UInt8(ascii: "\n")) {
        // Also of a client that sends a few bytes now and then.
        throw wasEmpty ? .idle : .tooSlow
      }
    }
  }

  /// Sends all of `bytes`, which take no longer than `milliseconds`.
  func write(_ bytes: [UInt8], milliseconds: UInt32) throws(Failure) {
    let deadline = Instant(millisecondsFromNow: milliseconds)
    var sentCount = 0
    while sentCount < bytes.count {
      do throws(Errno) {
        sentCount += try send(bytes, from: sentCount)
      } catch {
        switch error {
        case .wouldBlock, .resourceTemporarilyUnavailable:
          guard try waiting(for: .writing, until: deadline) else { throw .tooSlow }
        case .brokenPipe, .connectionReset: throw .ended(midLine: false)
        default: throw .system(error)
        }
      }
      // Also of a client that takes a few bytes now and then.
      if sentCount < bytes.count, deadline.millisecondsLeft == 0 { throw .tooSlow }
    }
  }

  private func waiting(
    for readiness: ControlCalls.Readiness, until deadline: Instant?
  ) throws(Failure) -> Bool {
    do { return try ControlCalls.wait(socket, for: readiness, until: deadline) } catch { throw .system(error) }
  }

  private func send(_ bytes: [UInt8], from start: Int) throws(Errno) -> Int {
    try ControlCalls.send(socket, bytes, from: start)
  }

  private func receive() throws(Failure) {
    var result: Result<Int, Errno> = .success(0)
    let piece = unsafe [UInt8](unsafeUninitializedCapacity: Self.pieceByteCount) { buffer, count in
      do throws(Errno) {
        // Safe: the buffer is ours for the length of the closure.
        count = try unsafe ControlCalls.receive(socket, into: UnsafeMutableRawBufferPointer(buffer))
        result = .success(count)
      } catch {
        result = .failure(error)
      }
    }
    do {
      guard try result.get() > 0 else { throw Failure.ended(midLine: !pending.isEmpty) }
      pending += piece
    } catch let error as Failure {
      throw error
    } catch Errno.wouldBlock {
      // Somebody woke us for nothing.
    } catch Errno.connectionReset {
      throw .ended(midLine: !pending.isEmpty)
    } catch {
      throw .system(error as? Errno ?? .ioError)
    }
  }
}
