import Bytes

/// What a disk's client was told: which writes, zeroes, trims and flushes it asked for, and which were acknowledged.
///
/// From that follows what each block may hold after a power cut: once a flush has covered a write, that write's bytes or
/// those of one that was not over before it began; and until then, also what was there before. Blocks that the ledger
/// fills say which write they are of, so that one look tells whether a block is right.
///
/// A ledger's block may be smaller than the store's: 512 bytes test writes of parts of blocks. Any number of threads
/// may call it. Each call says what it does before it begins, and again when it is over:
///
///     let write = ledger.willWrite(0..<4)
///     try volume.write(ledger.bytes(of: write), at: 0)
///     ledger.didFinish(write)
package final class DiskLedger: Sendable {
  /// A write, zeroing or trim under way or done.
  package struct Change: Sendable, Equatable {
    /// Unique in its ledger, from 1.
    package let number: Int
    package let blocks: Range<UInt64>
    /// Whether the blocks read as zeroes afterwards.
    package let zeroes: Bool

    package init(number: Int, blocks: Range<UInt64>, zeroes: Bool) {
      self.number = number
      self.blocks = blocks
      self.zeroes = zeroes
    }
  }

  /// A flush under way.
  package struct Flush: Sendable, Equatable {
    fileprivate let number: Int
  }

  /// The length of the ledger's blocks: a multiple of 512.
  package let blockByteCount: Int
  /// The length of the disk.
  package let blockCount: UInt64

  /// Something that happened, in the order of `events`.
  private struct Entry {
    let change: Change
    let begin: Int
    var end: Int?
    var isAcknowledged = false
    var isDurable = false
  }

  private struct State {
    /// For each event the clock's time at it; events are numbered from 0.
    var times: [Int] = []
    /// By change number, from 1.
    var changes: [Entry] = []
    /// By flush number: when it began and ended.
    var flushes: [(begin: Int, end: Int?)] = []
    /// For each block, the numbers of its changes in the order of their beginnings.
    var history: [UInt64: [Int]] = [:]
  }

  private let kind: UInt64
  private let clock: @Sendable () -> Int
  private let state = Locked(State())

  /// Makes the ledger of a disk whose blocks are all zero, durably.
  ///
  /// - Parameters:
  ///   - kind: a number that differs between the ledgers of one test, so that one disk's block shows on another.
  ///   - clock: the number of device calls so far: `CrashDevice.callCount`.
  package init(
    blockByteCount: Int = 4096, blockCount: UInt64, kind: UInt64 = 0, clock: @escaping @Sendable () -> Int
  ) {
    precondition(blockByteCount > 0 && blockByteCount % BlockStamp.sectorByteCount == 0)
    self.blockByteCount = blockByteCount
    self.blockCount = blockCount
    // Never zero, so that no stamp begins like a zero block.
    self.kind = 0x4C41_4355_4E41_0000 ^ kind
    self.clock = clock
  }

  // MARK: What happens

  /// A write of `blocks` begins. Its bytes are `bytes(of:)`.
  package func willWrite(_ blocks: Range<UInt64>) -> Change { begin(blocks, zeroes: false) }

  /// A zeroing or a trim of `blocks` begins.
  package func willZero(_ blocks: Range<UInt64>) -> Change { begin(blocks, zeroes: true) }

  /// A change was acknowledged; `durably`: as one with FUA is.
  package func didFinish(_ change: Change, durably: Bool = false) {
    state.withLock { state in
      state.changes[change.number - 1].end = event(&state)
      state.changes[change.number - 1].isAcknowledged = true
      state.changes[change.number - 1].isDurable = durably
    }
  }

  /// A change was refused, which may have left any of its blocks old or new.
  ///
  /// One whose end nobody saw, because the power went, needs no call.
  package func didFail(_ change: Change) {
    state.withLock { state in state.changes[change.number - 1].end = event(&state) }
  }

  /// A flush begins: it covers what was acknowledged until now.
  package func willFlush() -> Flush {
    state.withLock { state in
      state.flushes.append((begin: event(&state), end: nil))
      return Flush(number: state.flushes.count - 1)
    }
  }

  /// A flush was acknowledged.
  package func didFinish(_ flush: Flush) {
    state.withLock { state in state.flushes[flush.number].end = event(&state) }
  }

  /// The bytes that `change` puts into its blocks.
  package func bytes(of change: Change) -> [UInt8] {
    let byteCount = Int(change.blocks.length) * blockByteCount
    guard !change.zeroes else { return [UInt8](repeating: 0, count: byteCount) }
    return [UInt8](unsafeUninitializedCapacity: byteCount) { uninitialized, count in
      let buffer = UnsafeMutableRawBufferPointer(uninitialized)
      for (index, block) in change.blocks.enumerated() {
        let part = buffer[index * blockByteCount..<(index + 1) * blockByteCount]
        BlockStamp(kind: kind, write: UInt64(change.number), block: block)
          .fill(UnsafeMutableRawBufferPointer(rebasing: part))
      }
      count = byteCount
    }
  }

  private func begin(_ blocks: Range<UInt64>, zeroes: Bool) -> Change {
    precondition(blocks.upperBound <= blockCount, "the change is not inside the disk")
    return state.withLock { state in
      let change = Change(number: state.changes.count + 1, blocks: blocks, zeroes: zeroes)
      state.changes.append(Entry(change: change, begin: event(&state)))
      for block in blocks { state.history[block, default: []].append(change.number) }
      return change
    }
  }

  private func event(_ state: inout State) -> Int {
    state.times.append(clock())
    return state.times.count - 1
  }

  // MARK: What must be there

  /// What each block may hold after a power cut right before device call `crashPoint`.
  ///
  /// It serves all pictures of that crash.
  package func expectation(at crashPoint: Int) -> DiskExpectation {
    state.withLock { state in
      // Times never fall.
      let cut = state.times.firstIndex { $0 > crashPoint } ?? state.times.count
      // Of the flushes that are over, the one that began last covers the most.
      let covered = state.flushes.last { ($0.end ?? .max) < cut }?.begin ?? -1
      return expectation(of: state, before: cut) { entry in
        guard entry.isAcknowledged, let end = entry.end, end < cut else { return false }
        return entry.isDurable || end < covered
      }
    }
  }

  /// What each block may hold with no power cut: what was acknowledged, flushed or not.
  package func expectation() -> DiskExpectation {
    state.withLock { state in expectation(of: state, before: state.times.count) { $0.isAcknowledged } }
  }

  private func expectation(
    of state: State, before cut: Int, isCertain: (Entry) -> Bool
  ) -> DiskExpectation {
    var allowed: [UInt64: [DiskExpectation.Value]] = [:]
    for (block, numbers) in state.history {
      let entries = numbers.map { state.changes[$0 - 1] }.filter { $0.begin < cut }
      // What was over before a certain change began cannot come back.
      let floor = entries.filter(isCertain).map(\.begin).max() ?? -1
      var values = entries.filter { ($0.end ?? .max) > floor }.map { DiskExpectation.Value(change: $0.change) }
      if floor == -1 { values.append(.zeroes) }
      allowed[block] = values
    }
    return DiskExpectation(kind: kind, blockByteCount: blockByteCount, blockCount: blockCount, allowed: allowed)
  }
}

/// What each block of a disk may hold.
package struct DiskExpectation: Sendable {
  enum Value: Sendable, Equatable {
    case zeroes
    case write(Int)

    init(change: DiskLedger.Change) { self = change.zeroes ? .zeroes : .write(change.number) }
  }

  let kind: UInt64
  package let blockByteCount: Int
  package let blockCount: UInt64
  /// For blocks that something happened to; the others hold zeroes.
  let allowed: [UInt64: [Value]]

  /// Reads the whole disk and compares.
  ///
  /// - Parameter read: fills its buffer with the disk's bytes from its offset on.
  /// - Throws: `CheckFailure` that names the first wrong block, and whatever `read` throws.
  package func check(_ read: (UnsafeMutableRawBufferPointer, _ offset: UInt64) throws -> Void) throws {
    let step = max(1, (1 << 18) / blockByteCount)
    let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: step * blockByteCount, alignment: 4096)
    defer { memory.deallocate() }
    var first: UInt64 = 0
    while first < blockCount {
      let count = Int(min(UInt64(step), blockCount - first))
      let buffer = UnsafeMutableRawBufferPointer(rebasing: memory[..<(count * blockByteCount)])
      try read(buffer, first * UInt64(blockByteCount))
      for index in 0..<count {
        let part = UnsafeRawBufferPointer(rebasing: buffer[index * blockByteCount..<(index + 1) * blockByteCount])
        try check(part, block: first + UInt64(index))
      }
      first += UInt64(count)
    }
  }

  /// Compares the bytes of one block.
  package func check(_ bytes: UnsafeRawBufferPointer, block: UInt64) throws {
    let found = BlockStamp.find(in: bytes)
    let values = allowed[block] ?? [.zeroes]
    switch found {
    case .zeroes where values.contains(.zeroes): return
    case .stamp(let stamp)
    where stamp.kind == kind && stamp.block == block && values.contains(.write(Int(truncatingIfNeeded: stamp.write))):
      return
    default: throw CheckFailure("block \(block) holds \(words(for: found)); it may hold \(words(for: values))")
    }
  }

  private func words(for found: BlockStamp.Found) -> String {
    switch found {
    case .zeroes: "zeroes"
    case .stamp(let stamp) where stamp.kind == kind: "\(stamp)"
    case .stamp(let stamp): "\(stamp) of another disk"
    case .broken(let words): "neither zeroes nor one write (\(words))"
    }
  }

  private func words(for values: [Value]) -> String {
    values.map { value in
      switch value {
      case .zeroes: "zeroes"
      case .write(let number): "write \(number)"
      }
    }.joined(separator: ", ")
  }
}
