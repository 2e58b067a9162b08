internal import Bytes
internal import Devices
internal import Extents

/// The blocks of a memory device: who may use which, and the bytes in them.
///
/// Free blocks are in one of two sets. *Resident* ones were used and still hold memory; they are handed out first, since
/// their pages are there already. Once more than `residentLimit` blocks are resident, half of them are given back to the
/// system and become *pristine*, as blocks that were never used are. So memory in use is at most what is allocated plus
/// the limit.
///
/// Thread safety: `state` is guarded by its lock. Giving memory back takes long and happens outside it, under
/// `givingBack`, while the blocks are *leaving*: free, but not to be had. The order of the locks is `givingBack`, `state`.
/// Block 0 is never handed out.
final class MemorySpace: Sendable {
  let blockSize: BlockSize
  private let device: MemoryDevice
  private let state: Locked<State>
  private let givingBack = Lock(rank: .memoryReturn)
  private let residentLimit: UInt64

  fileprivate struct State {
    let blocks: Range<UInt64>
    var resident = FreeRuns()
    var leaving = FreeRuns()
    var pristine = FreeRuns()
  }

  /// Space for `blockCount` blocks, of which at most `residentLimit` free ones keep their memory.
  init(blockSize: BlockSize, blockCount: UInt64, residentLimit: UInt64) throws(StoreError) {
    self.blockSize = blockSize
    self.residentLimit = residentLimit
    let (byteCount, overflow) = blockCount.multipliedReportingOverflow(by: UInt64(blockSize.byteCount))
    guard blockCount > 0, !overflow else {
      throw StoreError(.outOfRange, "a memory cannot have \(blockCount) blocks of \(blockSize.byteCount) bytes")
    }
    do {
      device = try MemoryDevice(byteCount: byteCount, maximumByteCount: byteCount)
    } catch {
      throw StoreError(error)
    }
    var initial = State(blocks: 1..<blockCount)
    initial.pristine.insert(initial.blocks)
    state = Locked(rank: .memorySpace, initial)
  }

  /// Takes up to `count` contiguous blocks: at `near` where that is free, else where as many are together, else fewer.
  func allocate(_ count: UInt64, near: UInt64?) throws(StoreError) -> PhysicalRun {
    guard count > 0 else { throw StoreError(.outOfRange, "no blocks were asked for") }
    if let run = state.withLock({ $0.take(count, near: near) }) { return run }
    // What another thread is giving back at this moment is free, too.
    givingBack.withLock {}
    if let run = state.withLock({ $0.take(count, near: near) }) { return run }
    throw StoreError(.outOfSpace, "the memory store is full")
  }

  /// Makes the blocks of `run` free, and gives memory back where much is free.
  func free(_ run: PhysicalRun) throws(StoreError) {
    let residentCount = try state.withLock { state throws(StoreError) in
      try state.put(run)
      return state.resident.count
    }
    if residentCount > residentLimit { givingBack.withLock { giveBack() } }
  }

  /// Brings the resident blocks down to half of the limit. `givingBack` is held.
  private func giveBack() {
    let surplus = state.withLock { state in
      state.resident.count > residentLimit ? state.takeSurplus(state.resident.count - residentLimit / 2) : []
    }
    for run in surplus {
      let bytes = blockSize.offset(of: run.block)..<blockSize.offset(of: run.blocks.upperBound)
      // Where the system does not take it, the memory stays in use.
      let isGivenBack = (try? device.discard(bytes)) != nil
      state.withLock { $0.arrive(run.blocks, isPristine: isGivenBack) }
    }
  }

  /// How many blocks are not allocated.
  var freeCount: UInt64 { state.withLock { $0.resident.count + $0.leaving.count + $0.pristine.count } }

  /// Whether every block of `run` is one of the store's and allocated.
  func isAllocated(_ run: PhysicalRun) -> Bool { state.withLock { $0.isAllocated(run) } }

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
  fileprivate func isAllocated(_ run: PhysicalRun) -> Bool {
    guard run.count > 0, blocks.contains(run.block), run.count <= blocks.upperBound - run.block else { return false }
    return ![resident, leaving, pristine].contains { $0.overlaps(run.blocks) }
  }

  fileprivate mutating func put(_ run: PhysicalRun) throws(StoreError) {
    guard isAllocated(run) else { throw .notAllocated(run) }
    resident.insert(run.blocks)
  }

  /// Makes at least `wanted` resident blocks leave.
  fileprivate mutating func takeSurplus(_ wanted: UInt64) -> [PhysicalRun] {
    let surplus = resident.takeRuns(wanted)
    for run in surplus { leaving.insert(run.blocks) }
    return surplus
  }

  /// Ends the leaving of `blocks`.
  fileprivate mutating func arrive(_ blocks: Range<UInt64>, isPristine: Bool) {
    leaving.remove(blocks)
    if isPristine { pristine.insert(blocks) } else { resident.insert(blocks) }
  }

  fileprivate mutating func take(_ wanted: UInt64, near: UInt64?) -> PhysicalRun? {
    if let near, let run = resident.take(wanted, at: near) ?? pristine.take(wanted, at: near) { return run }
    return resident.takeWhole(wanted) ?? pristine.takeSome(wanted) ?? resident.takeSome(wanted)
  }
}

extension StoreError {
  static func notAllocated(_ run: PhysicalRun) -> StoreError {
    StoreError(.notAllocated, "of \(run.count) blocks from \(run.block) on, not all are allocated")
  }
}
