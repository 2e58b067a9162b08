internal import Bytes
package import Logging

/// Where an engine says what its user may want to know and no caller is told.
///
/// A handler may block, so none is called while a lock of the engine is held: a thread that holds one keeps its lines here, and a
/// thread without locks sends them: the one in the background, or whichever opens or closes the engine.
///
/// Thread safety: any thread. The lock in it is the last to be taken.
package final class EngineLog: Sendable {
  /// The keys of the metadata of all lines (docs/log.md).
  package enum Key: String, Sendable, CaseIterable {
    case blocks, error, firstBlock, freedBlocks, leftOutWrites, milliseconds, nodes, part, records, step, volumes
  }

  package typealias Facts = [(key: Key, value: String)]

  private struct Line {
    var level: Logger.Level
    var text: String
    var facts: Facts
  }

  private let logger: Logger
  private let kept = Locked<[Line]>(rank: .leaf, [])
  private let wakeSender = Locked<@Sendable () -> Void>(rank: .leaf, {})

  package init(_ logger: Logger) { self.logger = logger }

  /// From now on `body` is called where a line was kept: it gets a thread to call `send`. Locks may be held when it is called.
  func setSender(_ body: @escaping @Sendable () -> Void) { wakeSender.withLock { $0 = body } }

  /// Logs at once. No lock may be held.
  func write(_ level: Logger.Level, _ text: String, _ facts: Facts = []) {
    send()
    log(Line(level: level, text: text, facts: facts))
  }

  /// Logs soon. Locks may be held.
  func keep(_ level: Logger.Level, _ text: String, _ facts: Facts = []) {
    guard level >= logger.logLevel else { return }
    kept.withLock { $0.append(Line(level: level, text: text, facts: facts)) }
    wakeSender.withLock { $0 }()
  }

  /// Logs what was kept. No lock may be held.
  package func send() {
    let lines = kept.withLock { lines in
      defer { lines = [] }
      return lines
    }
    for line in lines { log(line) }
  }

  private func log(_ line: Line) {
    logger.log(
      level: line.level, "\(line.text)",
      metadata: Dictionary(line.facts.map { ($0.key.rawValue, .string($0.value)) }) { $1 })
  }
}

extension Duration {
  /// In whole milliseconds.
  var milliseconds: String { "\(components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000)" }
}
