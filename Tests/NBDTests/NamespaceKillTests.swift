import Bytes
import Glibc
import Lacuna
import LacunaTestSupport
import NBDTestSupport
import Testing

/// How often the server is killed in all; the environment variable LACUNA_KILLS sets another number.
private let killCount = getenv("LACUNA_KILLS").flatMap { Int(String(cString: $0)) } ?? 30

@Suite struct `kill -9 while volumes are made, during snapshots, deletions and rollbacks` {
  @Test func `each is done or not done, nothing else is lost, and what is deleted comes back`() throws {
    try withSeededGenerator { generator in
      try PrivateDirectory.run { directory in
        let path = directory.file("s.lacuna")
        var model = VolumeModel()
        var counts: [String: Int] = [:]
        // A journal that fills now and then: the checkpoints of operations and the others are both met.
        try ServedStore.run(path, ["size=\(VolumeModel.byteCount)", "journal=1M"]) { store in
          try model.fill("disk", store, &generator)
        }
        for round in 0...killCount {
          do {
            try ServedStore.run(path) { store in
              try model.settle(store, &counts)
              try model.compare(store)
              if round % 10 == 0 || round == killCount {
                try store.finishDeletions()
                try store.checkSound()
                try model.compare(store)
              }
              if round == killCount { return }
              let server = store.server
              let microseconds = UInt32.random(in: 5_000...60_000, using: &generator)
              let isOver = Locked(false)
              let box = Locked((model, generator))
              try inThreads(2) { [path] index in
                if index == 1 {
                  usleep(microseconds)
                  try server.kill()
                  isOver.withLock { $0 = true }
                  return
                }
                var (model, generator) = box.withLock { $0 }
                defer { box.withLock { [model, generator] in $0 = (model, generator) } }
                guard let control = try? ControlClient(path: path + ".sock") else { return }
                while !isOver.withLock({ $0 }), try model.step(control, server.socketPath, &generator) {}
              }
              (model, generator) = box.withLock { $0 }
            }
          } catch {
            throw CheckFailure("after kill \(round): \(error)")
          }
        }
        let text = counts.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" }.joined(separator: ", ")
        print("kill -9: \(killCount) kills; what they met: \(text)")
        #expect(counts.count >= 4, "too few operations were met: \(text)")
      }
    }
  }
}

/// What the volumes and snapshots of a store must hold, and the one operation that nobody knows the end of.
private struct VolumeModel: Sendable {
  static let byteCount = 2 << 20

  private struct Attributes: Sendable, Equatable {
    var isReadOnly = false
    var quota: UInt64?
    var reservation: UInt64?
  }

  private enum Operation: Sendable {
    case snapshot([String])
    case delete([String], withSnapshots: Bool)
    case create(String, Attributes)
    case rollBack(volume: String, snapshot: String)
    case write(volume: String, offset: Int, [UInt8])

    var name: String {
      switch self {
      case .snapshot: "snapshot"
      case .delete(_, withSnapshots: false): "delete"
      case .delete: "delete with snapshots"
      case .create: "create"
      case .rollBack: "rollback"
      case .write: "write"
      }
    }
  }

  private var disks: [String: [UInt8]] = ["disk": [UInt8](repeating: 0, count: Self.byteCount)]
  /// What volumes were made with, but for those that are as most.
  private var attributes: [String: Attributes] = [:]
  private var pending: Operation?
  private var nextNumber = 0

  private static func volume(of name: String) -> String { String(name.prefix { $0 != "@" }) }

  private var volumes: [String] { disks.keys.filter { !$0.contains("@") }.sorted() }
  private var writable: [String] { volumes.filter { attributes[$0]?.isReadOnly != true } }
  private var snapshots: [String] { disks.keys.filter { $0.contains("@") }.sorted() }

  /// No name is used again, so that it tells what belongs to a volume.
  private func names(_ names: [String], withSnapshots: Bool) -> [String] {
    names + (withSnapshots ? snapshots.filter { names.contains(Self.volume(of: $0)) } : [])
  }

  private func applying(_ operation: Operation) -> [String: [UInt8]] {
    var disks = disks
    switch operation {
    case .snapshot(let names): for name in names { disks[name] = disks[Self.volume(of: name)] }
    case .delete(let names, let withSnapshots):
      for name in self.names(names, withSnapshots: withSnapshots) { disks[name] = nil }
    case .create(let name, _): disks[name] = [UInt8](repeating: 0, count: Self.byteCount)
    case .rollBack(let volume, let snapshot): disks[volume] = disks[snapshot]
    case .write(let volume, let offset, let bytes):
      disks[volume]?.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    }
    return disks
  }

  /// Writes all over a volume.
  mutating func fill(_ name: String, _ store: ServedStore, _ generator: inout SeededGenerator) throws {
    let client = try store.open(name)
    let bytes = generator.pattern(Self.byteCount)
    for offset in stride(from: 0, to: bytes.count, by: 1 << 20) {
      try client.write(Array(bytes[offset..<offset + (1 << 20)]), at: UInt64(offset))
    }
    disks[name] = bytes
    try client.disconnect()
  }

  /// Does something at random, which is pending until it is answered. False where the server has gone.
  mutating func step(
    _ control: ControlClient, _ socketPath: String, _ generator: inout SeededGenerator
  ) throws -> Bool {
    let (volumes, snapshots) = (volumes, snapshots)
    func any(_ names: [String]) -> String { names[generator.number(below: names.count)] }
    let operation: Operation
    switch generator.number(below: 12) {
    case 0 where volumes.count < 4:
      nextNumber += 1
      let attributes = Attributes(
        isReadOnly: generator.oneIn(2), quota: 3 << 20, reservation: generator.oneIn(2) ? 1 << 20 : nil)
      operation = .create("made\(nextNumber)", attributes)
    case 0...4 where snapshots.count < 12:
      nextNumber += 1
      operation = .snapshot(
        generator.oneIn(2) ? volumes.map { "\($0)@\(nextNumber)" } : ["\(any(volumes))@\(nextNumber)"])
    case 3...6 where snapshots.count > 2:
      let some = snapshots + volumes.filter { $0 != "disk" }
      operation = .delete(Array(Set([any(some), any(some)])), withSnapshots: generator.oneIn(2))
    case 7...9 where snapshots.contains { writable.contains(Self.volume(of: $0)) }:
      let snapshot = any(snapshots.filter { writable.contains(Self.volume(of: $0)) })
      operation = .rollBack(volume: Self.volume(of: snapshot), snapshot: snapshot)
    case 10 where volumes.count < 3 && !snapshots.isEmpty:
      // A clone is as good as done or not done for the model: it becomes a volume of its own when that is known.
      nextNumber += 1
      let (source, name) = (any(snapshots), "clone\(nextNumber)")
      guard (try? control.call(CloneVolume(source: source, name: name))) != nil else { return false }
      disks[name] = disks[source]
      return true
    default:
      let count = 4096 * (1 + generator.number(below: 64))
      let offset = generator.number(below: (Self.byteCount - count) / 4096) * 4096
      operation = .write(volume: any(writable), offset: offset, generator.pattern(count))
    }
    pending = operation
    do {
      switch operation {
      case .snapshot(let names): _ = try control.call(CreateSnapshots(names: names))
      case .delete(let names, let withSnapshots):
        _ = try control.call(DeleteVolumes(names: names, force: true, snapshots: withSnapshots))
      case .create(let name, let attributes):
        _ = try control.call(
          CreateVolume(
            name: name, size: UInt64(Self.byteCount), readOnly: attributes.isReadOnly, quota: attributes.quota,
            reservation: attributes.reservation))
      case .rollBack(_, let snapshot): _ = try control.call(RollBackVolume(snapshot: snapshot, force: true))
      case .write(let volume, let offset, let bytes):
        try NBDClient(socketPath: socketPath, exportName: volume).write(bytes, at: UInt64(offset))
      }
    } catch let error as LacunaError {
      // No answer: the server was killed.
      guard error.code == .unreachable else { throw CheckFailure("\(operation.name): \(error)") }
      return false
    } catch let error as NBDError {
      guard error.code != ENOSPC && error.code != EIO else { throw error }
      return false
    }
    apply(operation)
    pending = nil
    return true
  }

  private mutating func apply(_ operation: Operation) {
    disks = applying(operation)
    if case .create(let name, let new) = operation { attributes[name] = new }
    attributes = attributes.filter { disks[$0.key] != nil }
  }

  /// Finds out what became of the operation that was not answered.
  mutating func settle(_ store: ServedStore, _ counts: inout [String: Int]) throws {
    let names = try store.control.call(ListVolumes()).volumes.map(\.name)
    // A clone whose answer was lost.
    for name in names where disks[name] == nil && name.hasPrefix("clone") && !name.contains("@") {
      let bytes = try store.contents(name)
      try check(snapshots.contains { disks[$0] == bytes }, "'\(name)' is a clone of nothing")
      disks[name] = bytes
    }
    guard let operation = pending else { return }
    pending = nil
    let done = applying(operation)
    if case .write(let volume, let offset, let bytes) = operation {
      // Each block of its own.
      let found = try store.contents(volume)
      for start in stride(from: offset, to: offset + bytes.count, by: 4096) {
        let block = start..<start + 4096
        try check(
          found[block] == disks[volume]?[block] || found[block] == done[volume]?[block],
          "the block at \(start) of '\(volume)' is neither old nor new")
      }
      disks[volume]?.replaceSubrange(offset..<offset + bytes.count, with: found[offset..<offset + bytes.count])
      counts["write", default: 0] += 1
      return
    }
    let isDone: Bool
    if case .rollBack(let volume, _) = operation {
      isDone = try store.contents(volume) == done[volume]
    } else {
      isDone = Set(names) == Set(done.keys)
    }
    if isDone { apply(operation) }
    counts["\(operation.name) \(isDone ? "done" : "not done")", default: 0] += 1
  }

  /// Compares the names, what the volumes were made with, and all bytes of all of them.
  func compare(_ store: ServedStore) throws {
    let all = try store.control.call(ListVolumes()).volumes
    for info in all where info.kind == .volume {
      let found = Attributes(isReadOnly: info.readOnly, quota: info.quota, reservation: info.reservation)
      let expected = attributes[info.name] ?? Attributes()
      try check(found == expected, "'\(info.name)' has \(found), and should have \(expected)")
    }
    let names = all.map(\.name)
    try check(Set(names) == Set(disks.keys), "there are \(names), and should be \(disks.keys.sorted())")
    for (name, bytes) in disks {
      try check(try store.contents(name) == bytes, "'\(name)' has other bytes than it should")
    }
  }
}
