internal import FoundationEssentials

/// A connection to a process that serves a store. One thread at a time may use it.
public final class ControlClient {
  private let path: String
  private let channel: LineChannel
  private var lastID: Int64 = 0

  /// The longest answer that is taken, in bytes.
  private static let answerByteCountMax = 64 << 20
  /// The longest time for the server to take a request, in milliseconds.
  private static let requestMillisecondsMax: UInt32 = 30_000

  /// Connects to the control socket at `path`; that of a store is ``ControlSocket/path(forStore:)``, unless its server was
  /// told otherwise.
  ///
  /// - Throws: `.unreachable` where nobody listens there.
  public init(path: String) throws(LacunaError) {
    self.path = path
    channel = LineChannel(try ControlSocket.connect(to: path))
  }

  /// A client on a socket that is connected to the server at `path` already.
  init(path: String, connected socket: Descriptor) {
    self.path = path
    channel = LineChannel(socket)
  }

  /// Has the server do what `method` asks for; waits as long as that takes.
  ///
  /// - Throws: what the server threw; `.unreachable` where it goes away before it has answered, so that nobody knows
  ///   whether it was done.
  public func call<Method: StoreMethod>(
    _ method: Method, progress: (Progress) -> Void = { _ in }
  ) throws(LacunaError) -> Method.Result {
    lastID += 1
    let id = RequestID.number(lastID)
    do throws(LineChannel.Failure) {
      try channel.write(ControlAnswer.request(method, id: id), milliseconds: Self.requestMillisecondsMax)
    } catch {
      // It may have said why it hung up.
      guard case .ended = error else { throw failure(error) }
    }
    while true {
      let line: [UInt8]
      do throws(LineChannel.Failure) {
        line = try channel.readLine(
          byteCountMax: Self.answerByteCountMax, idleMilliseconds: nil, lineMilliseconds: nil)
      } catch {
        throw failure(error)
      }
      switch try answer(line, to: Method.self) {
      case .progress(let report): progress(report)
      case .result(let result): return result
      }
    }
  }

  private enum Answer<Result> {
    case progress(Progress)
    case result(Result)
  }

  private func answer<Method: StoreMethod>(
    _ line: [UInt8], to _: Method.Type
  ) throws(LacunaError) -> Answer<Method.Result> {
    let message: Message<Method.Result>
    do {
      try RequestShape.check(line, nestingMax: ControlLimits().nestingMax)
      message = try JSONDecoder().decode(Message<Method.Result>.self, from: Data(line))
    } catch {
      throw LacunaError(.invalidRequest, "the server at \(path) gave an answer that cannot be read: \(error)")
    }
    if let error = message.error { throw error.error }
    if let progress = message.params { return .progress(progress) }
    guard message.id == .number(lastID), let result = message.result else {
      throw LacunaError(.invalidRequest, "the server at \(path) answered something that it was not asked")
    }
    return .result(result)
  }

  private struct Message<Result: Decodable>: Decodable {
    var id: RequestID?
    var result: Result?
    var error: RPCError?
    /// Of a notification, which is one of progress.
    var params: Progress?
  }

  private func failure(_ failure: LineChannel.Failure) -> LacunaError {
    let what =
      switch failure {
      case .ended: "hung up before it answered; whether it did what was asked is not known"
      case .tooSlow, .idle: "takes no requests"
      case .tooLong: "gave too long an answer"
      case .system(let error): "cannot be talked to: \(error)"
      }
    return LacunaError(.unreachable, "the server at \(path) \(what)")
  }
}
