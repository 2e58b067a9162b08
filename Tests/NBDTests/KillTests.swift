import Glibc
import LacunaTestSupport
import NBDTestSupport
import Testing

/// How often the server is killed, for each journal; the environment variable LACUNA_KILLS sets another number.
private let killCount = getenv("LACUNA_KILLS").flatMap { Int(String(cString: $0)) } ?? 40

@Suite struct `kill -9 under load` {
  // A journal of 64 KiB is full after a moment, so that the server is often killed during a checkpoint.
  @Test(arguments: ["64K", "1M", "16M"])
  func `nothing that was acknowledged is lost, flushed or not`(_ journal: String) throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        let store = directory.file("disk.lacuna")
        let command = try PluginUnderTest.command(store: store, ["size=8M", "journal=\(journal)"])
        let writers = (0..<4).map { index in
          // Parts that are no multiples of a block, so that neighbours share one.
          Writer(range: index * 1_500_001..<(index + 1) * 1_500_001, SeededGenerator(seed: generator.next()))
        }
        for round in 0...killCount {
          if round % 3 == 2 {
            // Killed while it starts and recovers, too.
            _ = try NBDServer.runToEnd(
              ["-f", "-U", directory.file("sock"), command.plugin] + command.parameters,
              secondsMax: Double.random(in: 0...0.08, using: &generator))
          }
          let microseconds = UInt32.random(in: 1_000...150_000, using: &generator)
          try NBDServer.run(command) { server in
            do {
              let client = try NBDClient(socketPath: server.socketPath)
              for writer in writers { try writer.settle(client) }
              for writer in writers { try writer.compare(client) }
            } catch {
              throw CheckFailure("after kill \(round): \(error)")
            }
            if round == killCount {
              print("kill -9: \(round) kills with a journal of \(journal), \(round / 3) more while the server started")
              return
            }
            let path = server.socketPath
            try inThreads(writers.count + 1) { index in
              if index == writers.count {
                usleep(microseconds)
                try server.kill()
              } else {
                try writers[index].run(path)
              }
            }
          }
        }
      }
    }
  }
}

/// One connection's stream of changes to one part of a disk, and what that part must hold. One thread at a time uses it.
private final class Writer: @unchecked Sendable {
  private let range: Range<UInt64>
  private var generator: SeededGenerator
  private var expected: [UInt8]
  /// The range whose change was not acknowledged, and what it holds if it was made.
  private var pending: (range: Range<UInt64>, bytes: [UInt8])?
  private var changeCount = 0

  init(range: Range<Int>, _ generator: SeededGenerator) {
    self.range = UInt64(range.lowerBound)..<UInt64(range.upperBound)
    self.generator = generator
    expected = [UInt8](repeating: 0, count: range.count)
  }

  /// Changes the disk until the server is gone.
  func run(_ socketPath: String) throws {
    guard let client = try? NBDClient(socketPath: socketPath) else { return }
    while true {
      let length = UInt64.random(in: 1...(Bool.random(using: &generator) ? 9_000 : 70_000), using: &generator)
      let start = UInt64.random(in: range.lowerBound...range.upperBound - length, using: &generator)
      let changed = start..<start + length
      let flags: CommandFlags = Int.random(in: 0..<20, using: &generator) == 0 ? .fua : []
      let kind = Int.random(in: 0..<20, using: &generator)
      var new = Array(expected[indices(changed)])
      switch kind {
      case 0..<14: new = generator.pattern(Int(length))
      case 14..<17: new = [UInt8](repeating: 0, count: Int(length))
      default:
        // Whole blocks alone.
        for index in new.indices where isInWholeBlock(start + UInt64(index), changed) { new[index] = 0 }
      }
      pending = (changed, new)
      do {
        switch kind {
        case 0..<14: try client.write(new, at: start, flags: flags)
        case 14..<17: try client.zero(length, at: start, flags: kind == 16 ? flags.union(.noHole) : flags)
        default: try client.trim(length, at: start, flags: flags)
        }
      } catch {
        // The server is gone: no answer, so the change may have been made, in part or not at all.
        guard error.code != ENOSPC && error.code != EIO else { throw error }
        return
      }
      expected.replaceSubrange(indices(changed), with: new)
      pending = nil
      changeCount += 1
      if Int.random(in: 0..<30, using: &generator) == 0 {
        do { try client.flush() } catch { return }
      }
    }
  }

  /// Finds out what became of the change that was not acknowledged: each block is as it was, or as it was to be.
  func settle(_ client: NBDClient) throws {
    guard let (changed, new) = pending else { return }
    pending = nil
    let found = try client.read(changed.count, at: changed.lowerBound)
    var start = changed.lowerBound
    while start < changed.upperBound {
      let end = min(changed.upperBound, (start / 4096 + 1) * 4096)
      let part = Int(start - changed.lowerBound)..<Int(end - changed.lowerBound)
      let isOld = found[part] == expected[indices(start..<end)]
      guard isOld || found[part] == new[part] else {
        throw CheckFailure(
          "bytes \(start..<end) are neither old nor new, after \(changeCount) changes")
      }
      expected.replaceSubrange(indices(start..<end), with: found[part])
      start = end
    }
  }

  /// Compares all that was acknowledged.
  func compare(_ client: NBDClient) throws {
    var start = range.lowerBound
    while start < range.upperBound {
      let end = min(range.upperBound, start + (1 << 20))
      let found = try client.read(Int(end - start), at: start)
      if found[...] != expected[indices(start..<end)] {
        let wrong = zip(start..<end, zip(found, expected[indices(start..<end)])).first { $1.0 != $1.1 }
        throw CheckFailure("byte \(wrong.map { "\($0) is \($1.0), not \($1.1)" } ?? "?"), after \(changeCount) changes")
      }
      start = end
    }
  }

  private func indices(_ bytes: Range<UInt64>) -> Range<Int> {
    Int(bytes.lowerBound - range.lowerBound)..<Int(bytes.upperBound - range.lowerBound)
  }

  private func isInWholeBlock(_ offset: UInt64, _ changed: Range<UInt64>) -> Bool {
    let block = offset / 4096 * 4096
    return block >= changed.lowerBound && block + 4096 <= changed.upperBound
  }
}
