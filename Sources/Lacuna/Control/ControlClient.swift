internal import FoundationEssentials

/// A connection to a process that serves a store. One thread at a time may use it.
package final class ControlClient {
  private let path: String
  private let channel: LineChannel
  private var lastID: Int64 = 0

  private let limits: ControlClientLimits

  /// Connects to the control socket at `path`; that of a store is ``ControlSocket/path(forStore:)``, unless its server was
  /// told otherwise. Nothing is sent to a server that is not believed: it is this process's user's, root's, or the owner's of the
  /// store, or has the store open for writing.
  ///
  /// - Parameter store: the store that it should serve.
  /// - Throws: `.untrusted` where somebody else listens there; `.unreachable` where nobody does.
  package init(
    path: String, store: FoundFile? = nil, limits: ControlClientLimits = ControlClientLimits()
  ) throws(LacunaError) {
    self.path = path
    self.limits = limits
    channel = LineChannel(try ControlSocket.connect(to: path, store: store, limits: limits))
    guard let store, let served = try call(Hello()).file, served != store.number else { return }
    throw LacunaError(
      .unreachable,
      "the server at \(path) serves another store than \(store.path), maybe one that was moved from here while it was served"
    )
  }

  /// A client on a socket that is connected to the server at `path` already.
  init(path: String, connected socket: Descriptor, limits: ControlClientLimits = ControlClientLimits()) {
    self.path = path
    self.limits = limits
    channel = LineChannel(socket)
  }

  /// Talks over a socket that is connected already, for programs that try out answers.
  package convenience init(connected socket: Int32, limits: ControlClientLimits) {
    self.init(path: "a socket", connected: Descriptor(socket), limits: limits)
  }

  /// Has the server do what `method` asks for; waits as long as that takes, as long as the server says now and then that it is at it.
  ///
  /// - Throws: what the server threw; `.unreachable` where it goes away or falls silent before it has answered, so that nobody knows
  ///   whether it was done. No other call may follow then.
  package func call<Method: StoreMethod>(
    _ method: Method, progress: (Progress) -> Void = { _ in }
  ) throws(LacunaError) -> Method.Result {
    lastID += 1
    let id = RequestID.number(lastID)
    do throws(LineChannel.Failure) {
      try channel.write(ControlAnswer.request(method, id: id), milliseconds: limits.requestMillisecondsMax)
    } catch {
      // It may have said why it hung up.
      guard case .ended = error else { throw failure(error, sending: true) }
    }
    while true {
      let line: [UInt8]
      do throws(LineChannel.Failure) {
        line = try channel.readLine(
          byteCountMax: limits.messageByteCountMax, idleMilliseconds: limits.silenceMillisecondsMax,
          lineMilliseconds: limits.messageMillisecondsMax)
      } catch {
        throw failure(error)
      }
      switch try answer(line, to: Method.self) {
      case .progress(let report): progress(report)
      case .nothing: break
      case .result(let result): return result
      }
    }
  }

  private enum Answer<Result> {
    case progress(Progress)
    /// A notification that it need not know, such as that the server is at it.
    case nothing
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
    if message.method != nil, message.id == nil {
      return message.params.map { .progress($0) } ?? .nothing
    }
    if let error = message.error { throw error.error }
    guard message.id == .number(lastID), let result = message.result else {
      throw LacunaError(.invalidRequest, "the server at \(path) answered something that it was not asked")
    }
    return .result(result)
  }

  private struct Message<Result: Decodable>: Decodable {
    var id: RequestID?
    var result: Result?
    var error: RPCError?
    /// Of a notification.
    var method: String?
    /// Of one of progress.
    var params: Progress?

    private enum Keys: CodingKey {
      case id, result, error, method, params
    }

    init(from decoder: any Decoder) throws {
      let container = try decoder.container(keyedBy: Keys.self)
      id = try container.decodeIfPresent(RequestID.self, forKey: .id)
      method = try container.decodeIfPresent(String.self, forKey: .method)
      // What other notifications have is of no account.
      params = method == "progress" ? try container.decodeIfPresent(Progress.self, forKey: .params) : nil
      error = try container.decodeIfPresent(RPCError.self, forKey: .error)
      result = try container.decodeIfPresent(Result.self, forKey: .result)
    }
  }

  private func failure(_ failure: LineChannel.Failure, sending isSending: Bool = false) -> LacunaError {
    let what =
      switch failure {
      case .ended: "hung up before it answered; whether it did what was asked is not known"
      case .idle:
        "has said nothing for \(limits.silenceMillisecondsMax / 1000) seconds, not even that it is at it; whether it will do what was "
          + "asked is not known"
      case .tooSlow where isSending: "takes no requests"
      case .tooSlow: "did not come to the end of its answer; whether it did what was asked is not known"
      case .tooLong: "gave too long an answer; whether it did what was asked is not known"
      case .system(let error): "cannot be talked to: \(error)"
      }
    return LacunaError(.unreachable, "the server at \(path) \(what)")
  }
}
