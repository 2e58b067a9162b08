import Bytes
import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

/// Writes of numbers by several connections, each to blocks of its own, so that one knows for every block when which was there.
///
/// A number is drawn before its write is sent, and another one when it is answered, both from one counter: a write was over
/// before another began if its second number is less than the other's first.
private final class Stamps: Sendable {
  let blockCount: Int
  private let clock = Locked<UInt64>(1)
  private let history: Locked<[[(number: UInt64, end: UInt64)]]>

  init(blockCount: Int) {
    self.blockCount = blockCount
    history = Locked(Array(repeating: [], count: blockCount))
  }

  /// The next number.
  func now() -> UInt64 {
    clock.withLock { clock in
      clock += 1
      return clock
    }
  }

  /// Writes some blocks of those that leave `rest` when divided by four, many at once, and waits for the answers. The blocks
  /// of several volumes lie one behind the other.
  func write(_ clients: [NBDClient], rest: Int, _ generator: inout SeededGenerator) throws {
    let perVolume = blockCount / clients.count
    var blocks = Set<Int>()
    while blocks.count < 8 { blocks.insert(generator.number(below: blockCount / 4) * 4 + rest) }
    let begun = blocks.map { (block: $0, number: now()) }
    for (block, number) in begun {
      let words = [UInt64](repeating: number.littleEndian, count: 512)
      _ = try clients[block / perVolume].startWrite(
        words.withUnsafeBytes { Array($0) }, at: UInt64(block % perVolume) << 12)
    }
    try NBDClient.finish(clients)
    let end = now()
    history.withLock { history in for (block, number) in begun { history[block].append((number, end)) } }
  }

  /// Checks that a snapshot which was asked for at `asked` has what was over then, and is of one instant: no write that is in it
  /// began after one was over that is not.
  func check(_ bytes: [UInt8], asked: UInt64, _ what: String) throws {
    var (latestBegin, earliestEnd) = (UInt64(0), UInt64.max)
    let history = history.withLock { $0 }
    try bytes.withUnsafeBytes { bytes in
      for block in 0..<blockCount {
        let words = bytes[block << 12..<(block + 1) << 12].withMemoryRebound(to: UInt64.self) { Array($0) }
        let found = UInt64(littleEndian: words[0])
        try LacunaTestSupport.check(words.allSatisfy { $0 == words[0] }, "\(what): block \(block) is torn")
        try LacunaTestSupport.check(
          found == 0 || history[block].contains { $0.number == found }, "\(what): nobody wrote \(found) to \(block)")
        if let next = history[block].first(where: { $0.number > found }) {
          earliestEnd = min(earliestEnd, next.end)
          try LacunaTestSupport.check(
            next.end > asked, "\(what): block \(block) lacks write \(next.number), which was over before")
        }
        latestBegin = max(latestBegin, found)
      }
    }
    try LacunaTestSupport.check(
      latestBegin <= earliestEnd,
      "\(what) is of no one instant: it has a write begun at \(latestBegin), and none that was over at "
        + "\(earliestEnd)")
  }

  var writeCount: Int { history.withLock { $0.reduce(0) { $0 + $1.count } } }
}

@Suite struct `Snapshots of a served store` {
  private static let blockCount = 256

  @Test func `one taken while four connections write has what was there at one instant, and all that was flushed`()
    throws
  {
    try withSeededGenerator { generator in
      let seed = generator.next()
      try PrivateDirectory.run { directory in
        try ServedStore.run(directory.file("s.lacuna"), ["size=1M", "journal=1M"]) { store in
          let stamps = Stamps(blockCount: Self.blockCount)
          let asked = Locked<[UInt64]>([])
          let isOver = Locked(false)
          let (server, path) = (store.server, store.path)
          try inThreads(5) { thread in
            if thread == 4 {
              defer { isOver.withLock { $0 = true } }
              let control = try ControlClient(path: path + ".sock")
              for number in 0..<20 {
                asked.withLock { $0.append(stamps.now()) }
                _ = try control.call(CreateSnapshots(names: ["disk@\(number)"]))
                usleep(20_000)
              }
              return
            }
            var generator = SeededGenerator(seed: seed &+ UInt64(thread))
            let client = try NBDClient(socketPath: server.socketPath)
            while !isOver.withLock({ $0 }) {
              try stamps.write([client], rest: thread, &generator)
              if generator.oneIn(10) { try client.flush() }
            }
          }
          for (number, asked) in asked.withLock({ $0 }).enumerated() {
            try stamps.check(try store.contents("disk@\(number)"), asked: asked, "snapshot \(number)")
          }
          #expect(stamps.writeCount > 20 * Self.blockCount, "too few writes to tell")
          try store.checkSound()
        }
      }
    }
  }

  @Test func `a group of them is of one instant over all its volumes`() throws {
    try withSeededGenerator { generator in
      let seed = generator.next()
      try PrivateDirectory.run { directory in
        try ServedStore.run(directory.file("s.lacuna"), ["size=1M", "journal=1M"]) { store in
          let volumes = ["disk", "a", "b/c"]
          for name in volumes.dropFirst() { _ = try store.control.call(CreateVolume(name: name, size: 1 << 20)) }
          // One counter, a history for each volume.
          let clock = Stamps(blockCount: Self.blockCount * volumes.count)
          let asked = Locked<[UInt64]>([])
          let isOver = Locked(false)
          let (server, path) = (store.server, store.path)
          try inThreads(5) { thread in
            if thread == 4 {
              defer { isOver.withLock { $0 = true } }
              let control = try ControlClient(path: path + ".sock")
              for number in 0..<12 {
                asked.withLock { $0.append(clock.now()) }
                _ = try control.call(CreateSnapshots(names: volumes.map { "\($0)@\(number)" }))
                usleep(20_000)
              }
              return
            }
            var generator = SeededGenerator(seed: seed &+ UInt64(thread))
            let clients = try volumes.map { try NBDClient(socketPath: server.socketPath, exportName: $0) }
            while !isOver.withLock({ $0 }) {
              try clock.write(clients, rest: thread, &generator)
              if generator.oneIn(10) { try clients[0].flush() }
            }
          }
          for (number, asked) in asked.withLock({ $0 }).enumerated() {
            let bytes = try volumes.flatMap { try store.contents("\($0)@\(number)") }
            try clock.check(bytes, asked: asked, "group \(number)")
          }
          try store.checkSound()
        }
      }
    }
  }
}
