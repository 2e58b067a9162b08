internal import Bytes
internal import SystemPackage

/// One client of a control server: reads requests, does them one after the other, answers. Its thread alone runs `serve`.
final class ControlConnection: Sendable {
  private let socket: Descriptor
  private let store: Store
  private let limits: ControlLimits
  private let idleSince = Locked<Instant?>(rank: .leaf, .now)
  private let isEnding = Locked(rank: .leaf, false)
  /// Held while a message is sent, so that no other comes between its bytes. The output under it is the point.
  private let sending = Lock(rank: .controlSending)
  /// When the client was last sent something, while a call is done for it; nil at other times, and in a batch, whose answer is one line.
  private let silentSince = Locked<Instant?>(rank: .leaf, nil)

  init(_ socket: Descriptor, _ store: Store, _ limits: ControlLimits) {
    self.socket = socket
    self.store = store
    self.limits = limits
  }

  /// Since when the client has asked for nothing; nil while it has.
  var idleTime: Instant? { idleSince.withLock { $0 } }

  /// Ends the connection, and a long call that it waits for. Any thread may call it.
  func end() {
    isEnding.withLock { $0 = true }
    ControlCalls.shutDown(socket)
  }

  /// Serves the client until it goes, or does what a client must not do.
  func serve() {
    let channel = LineChannel(socket)
    while true {
      do throws(LineChannel.Failure) {
        let line = try channel.readLine(
          byteCountMax: limits.requestByteCountMax, idleMilliseconds: limits.idleMillisecondsMax,
          lineMilliseconds: limits.requestMillisecondsMax)
        idleSince.withLock { $0 = nil }
        try answer(line, channel)
        idleSince.withLock { $0 = .now }
      } catch {
        say(farewell: error, channel)
        end()
        return
      }
    }
  }

  private func answer(_ line: [UInt8], _ channel: LineChannel) throws(LineChannel.Failure) {
    // People who type requests send empty lines.
    guard line.contains(where: { !RequestShape.isBlank($0) }) else { return }
    switch ControlMessage(line, limits: limits) {
    case .refused(let error): try send(ControlAnswer.error(error, to: .null), channel)
    case .requests(let requests, isBatch: false):
      for request in requests {
        silentSince.withLock { $0 = .now }
        let answer = perform(request, progress: channel)
        // Nothing comes after it.
        try send(answer ?? [], channel, isLast: true)
      }
    case .requests(let requests, isBatch: true): try answerBatch(requests, channel)
    }
  }

  /// Answers as it goes, so that no more than one answer is in memory.
  private func answerBatch(_ requests: [Incoming], _ channel: LineChannel) throws(LineChannel.Failure) {
    var separator = UInt8(ascii: "[")
    for request in requests {
      // No progress in between: the batch's answer is one line.
      guard let answer = perform(request, progress: nil) else { continue }
      try send([separator] + answer.dropLast(), channel)
      separator = UInt8(ascii: ",")
    }
    if separator == UInt8(ascii: ",") { try send(Array("]\n".utf8), channel) }
  }

  /// Does what one request asks for; nil where no answer is wanted.
  private func perform(_ request: Incoming, progress channel: LineChannel?) -> [UInt8]? {
    var next = Instant.now
    return request.answer(from: store) { id, report throws(LacunaError) in
      guard !isEnding.withLock({ $0 }) else { throw Self.gone }
      guard let channel, id != .null, next <= .now else { return }
      next = Instant(millisecondsFromNow: limits.progressMillisecondsMin)
      do { try send(ControlAnswer.progress(report, of: id), channel) } catch { throw Self.gone }
    }
  }

  /// Ends a call whose result nobody would get.
  private static var gone: LacunaError { LacunaError(.unreachable, "the client has gone, or the server stops") }

  private func send(_ bytes: [UInt8], _ channel: LineChannel, isLast: Bool = false) throws(LineChannel.Failure) {
    try sending.withLock { () throws(LineChannel.Failure) in
      if isLast { silentSince.withLock { $0 = nil } }
      try channel.write(bytes, milliseconds: limits.answerMillisecondsMax)
      silentSince.withLock { if $0 != nil { $0 = .now } }
    }
  }

  /// Tells a client that has heard nothing for long while its call is being done that this server is at it. A thread of its own calls
  /// it now and then. It never waits: a client that does not take what it was sent, or is being sent something, is not silent for want
  /// of a message.
  func sayAlive() {
    guard isSilent else { return }
    _ = sending.withLockIfFree {
      guard isSilent else { return }
      silentSince.withLock { if $0 != nil { $0 = .now } }
      do throws(Errno) {
        let sentCount = try ControlCalls.send(socket, ControlAnswer.alive)
        // A socket takes as little whole or not at all; half a line would be no line.
        if sentCount < ControlAnswer.alive.count { end() }
      } catch {
        // It does not read, or has gone, which sending the answer tells.
      }
    }
  }

  private var isSilent: Bool {
    let since = silentSince.withLock { $0 }
    return since.map { $0.millisecondsSince >= limits.aliveMilliseconds } ?? false
  }

  /// Tells the client why the connection ends, if it still listens.
  private func say(farewell failure: LineChannel.Failure, _ channel: LineChannel) {
    let text: String
    switch failure {
    case .tooLong: text = "a request has at most \(limits.requestByteCountMax) bytes"
    case .tooSlow: text = "a request comes within \(limits.requestMillisecondsMax / 1000) seconds"
    case .idle, .ended, .system: return
    }
    let error = RPCError(LacunaError(.invalidRequest, text), code: RPCError.Code.invalidRequest)
    try? channel.write(ControlAnswer.error(error, to: .null), milliseconds: 100)
  }
}
