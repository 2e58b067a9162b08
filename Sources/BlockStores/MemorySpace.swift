internal import Bytes
internal import Devices

/// The blocks of a memory device: who may use which, and the bytes in them.
///
/// Free blocks are in one of two sets. *Resident* ones were used and still hold memory; they are handed out first, since
/// their pages are there already. Once more than `residentLimit` blocks are resident, half of them are given back to the
/// system and become *pristine*, as blocks that were never used are. So memory in use is at most what is allocated plus
/// the limit.
///
/// Thread safety: `state` is guarded by its lock; giving memory back happens outside it, while the blocks are in neither
/// set. Block 0 is never handed out.
final class MemorySpace: Sendable {
  let blockSize: BlockSize
  private let device: MemoryDevice
  private let state: Locked<State>
  private let residentLimit: UInt64

  fileprivate struct State {
    var resident = FreeRuns()
    var pristine = FreeRuns()
  }

  /// Space for `blockCount` blocks, of which at most `residentLimit` free ones keep their memory.
  init(blockSize: BlockSize, blockCount: UInt64, residentLimit: UInt64) throws(StoreError) {
    self.blockSize = blockSize
    self.residentLimit = residentLimit
    let (byteCount, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(blockSize.byteCount))
    guard blockCount > 0, !overflow else {
      throw StoreError(.outOfRange, "a memory of \(blockCount) blocks of \(blockSize.byteCount) bytes cannot be")
    }
    do {
      device = try MemoryDevice(byteCount: byteCount, maximumByteCount: byteCount)
    } catch {
      throw StoreError(error)
    }
    var initial = State()
    if blockCount > 1 { initial.pristine.insert(1..<blockCount) }
    state = Locked(initial)
  }

  /// Takes up to `count` contiguous blocks: at `near` where that is free, else where as many are together, else fewer.
  func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    guard count > 0 else { throw StoreError(.outOfRange, "no blocks were asked for") }
    let run = state.withLock { $0.take(count, near: near) }
    guard let run else { throw StoreError(.outOfSpace, "the memory store is full") }
    return run
  }

  /// Makes the blocks of `run` free, and gives memory back where much is free.
  func free(_ run: PhysicalRun) throws(StoreError) {
    let limit = residentLimit
    let surplus = try state.withLock { state throws(StoreError) in
      try state.put(run)
      return state.resident.count > limit ? state.resident.takeRuns(state.resident.count - limit / 2) : []
    }
    for run in surplus { try giveBack(run) }
  }

  private func giveBack(_ run: PhysicalRun) throws(StoreError) {
    do {
      try device.discard(blockSize.offset(of: run.block)..<blockSize.offset(of: run.block + run.count))
      state.withLock { $0.pristine.insert(run.blocks) }
    } catch {
      state.withLock { $0.resident.insert(run.blocks) }
      throw StoreError(error)
    }
  }

  /// How many blocks are neither allocated nor on their way back.
  var freeCount: UInt64 { state.withLock { $0.resident.count + $0.pristine.count } }

  /// Whether any block of `run` is free.
  func isAnyFree(_ run: PhysicalRun) -> Bool { state.withLock { $0.isAnyFree(run) } }

  func read(into buffer: UnsafeMutableRawBufferPointer, from block: UInt64, skip: Int) throws(StoreError) {
    do {
      try unsafe device.read(into: buffer, at: position(of: block, skip: skip))
    } catch {
      throw StoreError(error)
    }
  }

  func write(_ bytes: UnsafeRawBufferPointer, to block: UInt64, skip: Int) throws(StoreError) {
    do {
      try unsafe device.write(bytes, at: position(of: block, skip: skip))
    } catch {
      throw StoreError(error)
    }
  }

  private func position(of block: UInt64, skip: Int) -> UInt64 {
    // A block number that is none wraps to a position that the device refuses, or to another block's: the caller's
    // mistake, as with any pointer.
    blockSize.offset(of: block) &+ UInt64(truncatingIfNeeded: skip)
  }
}

extension MemorySpace.State {
  fileprivate func isAnyFree(_ run: PhysicalRun) -> Bool {
    resident.overlaps(run.blocks) || pristine.overlaps(run.blocks)
  }

  fileprivate mutating func put(_ run: PhysicalRun) throws(StoreError) {
    guard run.count > 0, run.block > 0, !isAnyFree(run) else { throw .notAllocated(run) }
    resident.insert(run.blocks)
  }

  fileprivate mutating func take(_ wanted: UInt64, near: UInt64?) -> PhysicalRun? {
    if let near, let run = resident.take(wanted, at: near) ?? pristine.take(wanted, at: near) { return run }
    return resident.takeWhole(wanted) ?? pristine.takeSome(wanted) ?? resident.takeSome(wanted)
  }
}

extension StoreError {
  static func notAllocated(_ run: PhysicalRun) -> StoreError {
    StoreError(.notAllocated, "\(run.count) blocks from \(run.block) on are not all allocated")
  }
}
