/// A control server without a socket: what it would answer to one line, for programs that try out lines.
package enum ControlLine {
  /// A client's first request.
  package static func request(_ method: some StoreMethod) -> [UInt8] { ControlAnswer.request(method, id: .number(1)) }

  /// The answers, each with its newline; those of a batch one by one. Any bytes are a line.
  package static func answers(to line: [UInt8], from store: Store) -> [[UInt8]] {
    switch ControlMessage(line, limits: ControlLimits()) {
    case .refused(let error): [ControlAnswer.error(error, to: .null)]
    case .requests(let requests, _): requests.compactMap { $0.answer(from: store) { _, _ in } }
    }
  }
}

extension Incoming {
  /// Does what the request asks for; nil where no answer is wanted.
  func answer(
    from store: Store, progress: (RequestID, Progress) throws(LacunaError) -> Void
  ) -> [UInt8]? {
    switch self {
    case .refused(let id, let error): id.map { ControlAnswer.error(error, to: $0) }
    case .call(let id, let method): Self.answer(method, id, store, progress)
    }
  }

  private static func answer<Method: StoreMethod>(
    _ method: Method, _ id: RequestID?, _ store: Store, _ progress: (RequestID, Progress) throws(LacunaError) -> Void
  ) -> [UInt8]? {
    do throws(LacunaError) {
      let result = try store.call(method) { report throws(LacunaError) in try progress(id ?? .null, report) }
      return id.map { ControlAnswer.result(result, to: $0) }
    } catch {
      return id.map { ControlAnswer.error(RPCError(error), to: $0) }
    }
  }
}
