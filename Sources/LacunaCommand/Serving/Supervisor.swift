internal import Glibc

/// Runs nbdkit, and another one when it dies: the socket stays this process's own, so that clients which come in between wait
/// and are not refused.
///
/// A store on disk has all that was acknowledged, whatever nbdkit died of. What a disk in memory had is gone, so it is not
/// started again. nbdkit is started anew as often as it dies, and given up only where it fails to begin again and again, as when
/// the store cannot be opened any more.
struct Supervisor {
  let service: Service
  /// What clients connect to.
  let socket: Int32
  /// Whether another nbdkit follows one that died.
  let restarts: Bool
  let signals: Signals
  /// What passes on what nbdkit says.
  let log: LogRelay
  /// Called once, when the first nbdkit serves.
  let announce: () throws -> Void

  /// Seconds before one more start: the next one each time that a server served for less than a second, and the last one
  /// from then on.
  private static let pausesAfterDeath = [0, 0.1, 0.2, 0.4]
  /// The same where it could not begin to serve. After the last one it is given up.
  private static let pausesAfterFailure = [0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5, 5]

  private enum Outcome {
    case ended(ProcessEnd, served: Duration?)
    case notAnnounced(any Error)
  }

  private var hasServed = false
  private var stopRequestCount = 0

  init(
    _ service: Service, socket: Int32, restarts: Bool, signals: Signals, log: LogRelay,
    announce: @escaping () throws -> Void
  ) {
    self.service = service
    self.socket = socket
    self.restarts = restarts
    self.signals = signals
    self.log = log
    self.announce = announce
  }

  /// Serves until that was asked to end, or cannot go on.
  ///
  /// - Returns: the exit code for this process.
  mutating func run() throws -> Int32 {
    defer { log.finish() }
    var (deathCount, failureCount) = (0, 0)
    while true {
      let end: ProcessEnd
      let served: Duration?
      switch try runOnce() {
      case .ended(let howEnded, let duration): (end, served) = (howEnded, duration)
      case .notAnnounced(let error): throw error
      }
      if stopRequestCount > 0 {
        // What was asked for is a success, also where it had to be forced.
        if case .exited(let code) = end { return code }
        return 0
      }
      // One that ended well was meant to, and where the first one does not start, the next one will not either.
      guard end != .exited(0), hasServed, restarts else {
        if case .killed = end {
          say("nbdkit \(end.text)\(restarts ? "" : ", and is not started again (--no-restart)")")
        }
        return end.code
      }
      guard !service.isInMemory else {
        throw Failure(
          "nbdkit \(end.text), and the disk in memory is gone; it is not started again, as it would be empty")
      }
      let pause: Double
      if let served, !end.isFailedStart(after: served) {
        failureCount = 0
        deathCount = served < .seconds(1) ? deathCount + 1 : 0
        pause = Self.pausesAfterDeath[min(deathCount, Self.pausesAfterDeath.count - 1)]
      } else {
        guard failureCount < Self.pausesAfterFailure.count else {
          throw Failure(
            "nbdkit \(end.text), and could not begin to serve \(failureCount + 1) times in a row; giving up")
        }
        pause = Self.pausesAfterFailure[failureCount]
        failureCount += 1
      }
      say("nbdkit \(end.text); starting it again")
      guard !isStopRequested(within: pause) else { return 0 }
    }
  }

  /// Runs one nbdkit from its start to its end.
  private mutating func runOnce() throws -> Outcome {
    let process = try ServedProcess.start(
      service.supervisedCommand(makesStore: !hasServed), socket: socket, log: log.writeEnd,
      restoringSignals: signals.restore)
    var beginning: ContinuousClock.Instant?
    while true {
      // Only nbdkit's end comes with a signal, not its beginning to serve.
      let signal = nextSignal(milliseconds: beginning == nil ? 10 : nil)
      if beginning == nil, process.hasBegunToServe() {
        beginning = .now
        do { try noteServing() } catch {
          kill(process.pid, SIGKILL)
          while process.end() == nil { _ = nextSignal(milliseconds: 10) }
          return .notAnnounced(error)
        }
      }
      // Also where it has ended meanwhile, so that no other one is started.
      if let signal, signal != SIGCHLD { requestStop(process) }
      if let end = process.end() {
        // What it said last comes before what is said of its end.
        while log.pass() {}
        return .ended(end, served: beginning.map { .now - $0 })
      }
    }
  }

  private mutating func noteServing() throws {
    guard !hasServed else { return }
    hasServed = true
    try announce()
  }

  private mutating func requestStop(_ process: ServedProcess) {
    stopRequestCount += 1
    if stopRequestCount == 1 {
      say("Ending when all clients have gone; once more to end at once")
      kill(process.pid, SIGTERM)
    } else {
      kill(process.pid, SIGKILL)
    }
  }

  /// Waits, unless an end is asked for.
  private func isStopRequested(within seconds: Double) -> Bool {
    let end = ContinuousClock.now + .seconds(seconds)
    while true {
      let left = end - .now
      guard left > .zero else { return false }
      let milliseconds = Int(left / .milliseconds(1)) + 1
      if let signal = nextSignal(milliseconds: milliseconds), signal != SIGCHLD { return true }
    }
  }

  /// The next signal, with what nbdkit says meanwhile passed on; nil where none comes for so long.
  ///
  /// - Parameter milliseconds: how long to wait; nil for as long as it takes.
  private func nextSignal(milliseconds: Int?) -> Int32? {
    let end = milliseconds.map { ContinuousClock.now + .milliseconds($0) }
    while true {
      if let signal = signals.next(milliseconds: 0) { return signal }
      let left = end.map { max(Int(($0 - .now) / .milliseconds(1)) + 1, 0) }
      if let end, .now >= end { return nil }
      signals.wait(orFor: log.readEnd, milliseconds: [left, log.millisecondsLeft].compactMap { $0 }.min())
      log.pass()
    }
  }

  private func say(_ text: String) { log.say("lacuna: \(text.visible)") }
}

extension ProcessEnd {
  /// Whether one that said it serves failed before it could: nbdkit says so before it starts the threads of the plugin.
  fileprivate func isFailedStart(after served: Duration) -> Bool {
    if case .exited = self { served < .seconds(1) } else { false }
  }
}
