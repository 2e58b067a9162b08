import Bytes
import LacunaTestSupport

/// All volumes and snapshots: for each unit of 512 bytes which write it is of; 0 for zeroes.
struct NamespaceState: Sendable, Equatable {
  typealias Disk = [UInt32]
  static let unit = 512

  var disks: [String: Disk] = [:]
  /// What volumes are beside their contents, of those that are something else than most.
  var attributes: [String: Attributes] = [:]

  /// What a volume can be made with.
  struct Attributes: Sendable, Equatable {
    var isReadOnly = false
    /// In blocks of 1024 bytes; 0 for none.
    var quota: UInt64 = 0
    var reservation: UInt64 = 0
  }

  /// Something that changes the state.
  enum Operation: Sendable {
    case create(String, unitCount: Int, Attributes)
    case snapshot([(volume: String, snapshot: String)])
    case clone(String, name: String)
    case rollback(String, snapshot: String)
    case rename(String, name: String)
    case resize(String, unitCount: Int)
    case delete([String])
    case keep(Disk, name: String)
    case write(String, units: Range<Int>, number: UInt32)
    /// A flush or a checkpoint: nothing changes, and all before is durable.
    case barrier

    /// Whether all that was done before is durable, whole, when it is over, and it is itself.
    var isBarrier: Bool { if case .write = self { false } else { true } }
  }

  mutating func apply(_ operation: Operation) {
    switch operation {
    case .create(let name, let unitCount, let other):
      disks[name] = Disk(repeating: 0, count: unitCount)
      if other != Attributes() { attributes[name] = other }
    case .snapshot(let pairs): for (volume, snapshot) in pairs { disks[snapshot] = disks[volume] }
    case .clone(let source, let name): disks[name] = disks[source]
    case .rollback(let name, let snapshot):
      disks[name] = disks[snapshot]
      fitReservation(of: name)
    case .rename(let name, let new):
      for old in disks.keys where old == name || old.hasPrefix(name + "@") {
        disks[new + old.dropFirst(name.count)] = disks.removeValue(forKey: old)
      }
      attributes[new] = attributes.removeValue(forKey: name)
    case .resize(let name, let unitCount):
      guard let old = disks[name] else { return }
      disks[name] = old.prefix(unitCount) + Disk(repeating: 0, count: max(unitCount - old.count, 0))
      fitReservation(of: name)
    case .delete(let names): for name in names { (disks[name], attributes[name]) = (nil, nil) }
    case .keep(let disk, let name): disks[name] = disk
    case .write(let name, let units, let number):
      disks[name]?.replaceSubrange(units, with: repeatElement(number, count: units.count))
    case .barrier: break
    }
  }

  /// No more is reserved than the volume has.
  private mutating func fitReservation(of name: String) {
    guard let disk = disks[name], let old = attributes[name] else { return }
    attributes[name]?.reservation = min(old.reservation, UInt64(disk.count * Self.unit + 1023) / 1024)
  }
}

/// What the client of a store with many volumes was told, by one thread; and what may therefore be there after a crash.
final class NamespaceLedger: Sendable {
  private struct Entry {
    var operation: NamespaceState.Operation
    var begin: Int
    var end: Int?
  }

  private let entries = Locked<[Entry]>([])
  private let clock: @Sendable () -> Int

  init(clock: @escaping @Sendable () -> Int) { self.clock = clock }

  /// Notes what `body` does, around it.
  func note(_ operation: NamespaceState.Operation, _ body: () throws -> Void) throws {
    let index = entries.withLock { entries in
      entries.append(Entry(operation: operation, begin: clock()))
      return entries.count - 1
    }
    try body()
    let end = clock()
    entries.withLock { $0[index].end = end }
  }

  /// What may be there after a crash right before device call `point`.
  func expectation(at point: Int) -> NamespaceExpectation {
    entries.withLock { entries in
      NamespaceExpectation(
        entries.prefix { $0.begin <= point }.map { ($0.operation, $0.end.map { $0 <= point } ?? false) },
        losesWrites: true)
    }
  }

  /// What may be there with no power cut: all that was acknowledged, and perhaps what was not.
  func expectation() -> NamespaceExpectation {
    entries.withLock { entries in
      NamespaceExpectation(entries.map { ($0.operation, $0.end != nil) }, losesWrites: false)
    }
  }

  /// What the client has been told that there is.
  var state: NamespaceState {
    entries.withLock { entries in
      var state = NamespaceState()
      for entry in entries where entry.end != nil { state.apply(entry.operation) }
      return state
    }
  }

  /// A number for the next write.
  var nextNumber: UInt32 { UInt32(entries.withLock { $0.count } + 1) }
}

/// What may be there after a crash: what is durable, with any units of the writes behind that; or all of it, and the one
/// operation that was under way.
struct NamespaceExpectation: Sendable {
  private var durable = NamespaceState()
  private var later: [NamespaceState.Operation] = []
  private var whole: NamespaceState?

  init(_ operations: [(operation: NamespaceState.Operation, isOver: Bool)], losesWrites: Bool) {
    let last = operations.lastIndex { $0.isOver && ($0.operation.isBarrier || !losesWrites) } ?? -1
    for (operation, _) in operations[...max(last, -1)] { durable.apply(operation) }
    for (operation, isOver) in operations.dropFirst(last + 1) {
      if operation.isBarrier, !isOver {
        var state = durable
        for write in later { state.apply(write) }
        state.apply(operation)
        whole = state
      } else {
        later.append(operation)
      }
    }
  }

  /// Compares what a store has.
  func check(_ found: NamespaceState) throws {
    if let whole, whole == found { return }
    let (names, expected) = (found.disks.keys.sorted(), durable.disks.keys.sorted())
    try LacunaTestSupport.check(names == expected, "there are \(names), and should be \(expected)")
    try LacunaTestSupport.check(
      found.attributes == durable.attributes, "there is \(found.attributes), and should be \(durable.attributes)")
    for (name, disk) in found.disks {
      guard let old = durable.disks[name] else { continue }
      try LacunaTestSupport.check(
        disk.count == old.count, "'\(name)' has \(disk.count) units, and should have \(old.count)")
      for unit in disk.indices where disk[unit] != old[unit] {
        let isLater = later.contains { operation in
          if case .write(name, let units, let number) = operation {
            units.contains(unit) && number == disk[unit]
          } else {
            false
          }
        }
        try LacunaTestSupport.check(isLater, "'\(name)', unit \(unit): write \(disk[unit]), and should be \(old[unit])")
      }
    }
  }
}
