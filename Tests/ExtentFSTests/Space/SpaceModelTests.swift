import Extents
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// What a space map must know, block by block.
private struct SpaceModel {
  enum State { case free, allocated, committed, released }

  var states: [UInt64: State] = [:]
  /// The states of the last durable superblock: committed or not.
  var durable: Set<UInt64> = []
  var committed: Set<UInt64> { Set(states.filter { $0.value == .committed }.keys) }

  mutating func set(_ run: PhysicalRun, from old: State, to new: State) throws {
    for block in run.blocks {
      try check(states[block, default: .free] == old, "block \(block) is \(states[block, default: .free]), not \(old)")
      states[block] = new
    }
  }

  func run(_ state: State, _ generator: inout SeededGenerator) -> PhysicalRun? {
    guard let start = states.filter({ $0.value == state }).keys.sorted().randomElement(using: &generator) else {
      return nil
    }
    var count: UInt64 = 1
    while count < 9, states[start + count] == state { count += 1 }
    return PhysicalRun(block: start, count: count)
  }
}

@Suite struct SpaceModelTests {
  @Test(arguments: [1, 2, 60, 300] as [UInt64])
  func `random use agrees with a set of blocks, over checkpoints, failures and crashes`(blocks: UInt64) throws {
    try withSeededGenerator { generator in
      // The last blocks are in the second group.
      var store = try SpaceFixture(blockCount: 192 + 8192 + 66 + blocks)
      let filler = try store.space.allocate(upTo: 1 << 20, purpose: .data)
      let total = blocks + 3
      try store.space.cancelAllocation(PhysicalRun(block: filler.block + 1000, count: 3))
      try store.space.commit(PhysicalRun(block: filler.block, count: 1000))
      try store.space.commit(PhysicalRun(block: filler.block + 1003, count: filler.count - 1003))
      try store.checkpoint()
      var model = SpaceModel()
      for _ in 0..<6_000 {
        try step(&store, &model, total, &generator)
        let used = model.states.values.count { $0 != .free }
        try check(
          store.space.freeBlockCount == total - UInt64(used),
          "\(store.space.freeBlockCount) free, \(used) of \(total) used")
        try check(
          store.space.usedBlockCount == filler.count - 3 + UInt64(model.committed.count),
          "used: \(store.space.usedBlockCount)")
      }
    }
  }

  private func step(
    _ store: inout SpaceFixture, _ model: inout SpaceModel, _ total: UInt64, _ generator: inout SeededGenerator
  ) throws {
    let space = store.space
    switch generator.number(below: 20) {
    case 0..<8:
      let free = total - UInt64(model.states.values.count { $0 != .free })
      let wanted = 1 + generator.number(below: 12 as UInt64)
      do {
        let run = try space.allocate(
          upTo: wanted, near: generator.oneIn(2) ? model.states.keys.randomElement(using: &generator) : nil,
          purpose: generator.oneIn(4) ? .metadata : .data)
        try check(run.count >= 1 && run.count <= wanted, "\(run.count) blocks for \(wanted)")
        try model.set(run, from: .free, to: .allocated)
      } catch let error as ExtentFSError {
        try check(error.code == .outOfSpace && free == 0, "\(error), \(free) blocks free")
      }
    case 8..<12:
      guard let run = model.run(.allocated, &generator) else { return }
      try space.commit(run)
      try model.set(run, from: .allocated, to: .committed)
    case 12:
      guard let run = model.run(.allocated, &generator) else { return }
      try space.cancelAllocation(run)
      try model.set(run, from: .allocated, to: .free)
    case 13..<16:
      guard let run = model.run(.committed, &generator) else { return }
      try space.deferFree(run)
      try model.set(run, from: .committed, to: .released)
    case 16, 17:
      guard let run = model.run(.released, &generator), model.durable.isDisjoint(with: run.blocks) else { return }
      try space.free(run)
      try model.set(run, from: .released, to: .free)
    case 18:
      if generator.oneIn(3) { try store.writeCheckpoint() }
      if generator.oneIn(2) {
        try store.checkpoint()
        model.durable = model.committed
      } else {
        store.failCheckpoint()
        for (block, state) in model.states where state == .committed || state == .released {
          if model.durable.contains(block) {
            model.states[block] = .committed
          } else if state == .committed {
            model.states[block] = .allocated
          }
        }
      }
    default:
      guard generator.oneIn(4) else { return }
      // A crash, after a checkpoint was written whose superblock never came.
      if generator.oneIn(2) { try store.writeCheckpoint() }
      store = try store.reopened()
      model.states = [:]
      for block in model.durable { model.states[block] = .committed }
    }
  }

  @Test func `bitmaps agree with an array of bits`() throws {
    try withSeededGenerator { generator in
      var bits = [Bool](repeating: false, count: 256)
      var bitmap = Bitmap(count: 256)
      for _ in 0..<20_000 {
        let wide = generator.range(below: 256, longest: generator.oneIn(3) ? 256 : 20)
        let range = Int(wide.lowerBound)..<Int(wide.upperBound)
        let value = generator.oneIn(2)
        if value { bitmap.insert(range) } else { bitmap.remove(range) }
        for index in range { bits[index] = value }
        let other = generator.range(below: 256, longest: 100)
        let probe = Int(other.lowerBound)..<Int(other.upperBound)
        try check(bitmap.containsAny(of: probe) == bits[probe].contains(true), "any of \(probe)")
        try check(bitmap.containsAll(of: probe) == !bits[probe].contains(false), "all of \(probe)")
        try check(
          bitmap.firstClear(from: probe.lowerBound, before: probe.upperBound) == bits[probe].firstIndex(of: false),
          "clear in \(probe)")
        try check(
          bitmap.firstSet(from: probe.lowerBound, before: probe.upperBound) == bits[probe].firstIndex(of: true),
          "set in \(probe)")
        try check(bitmap.setCount == bits.count { $0 }, "count")
        try check(bitmap.isEmpty == !bits.contains(true), "empty")
      }
    }
  }
}
