internal import Atomics
internal import Bytes
internal import Devices
internal import Extents
internal import Glibc
internal import Logging

/// What `Engine.reclaimAll` gave back.
package struct ReclaimedSpace: Sendable, Hashable {
  /// How many bytes of storage the host had for free blocks; all that was free, where it does not tell.
  package var byteCount: UInt64 = 0
  /// Whether the host tells.
  package var isKnown = true
}

/// Giving free space back to the host. A free run is in use while the host has not answered.
///
/// What becomes free is marked in memory. The marks are gone when the process is, and what it freed last may have become
/// free only when it ended: so the host is asked what it holds of free blocks, once after each opening and where the device
/// grew. What is free after an opening is safe to give back at any time, as what is freed later: its checkpoint made the
/// superblock durable that does not lead there, and what the journal or a view leads to is in use.
///
/// Thread safety: any thread; without any lock held, since it calls the device.
final class HostSpace: Sendable {
  /// How many calls of `withoutBackground` are running.
  private let reclaimingCount = ManagedAtomic<Int>(0)
  /// Whether the device has refused to take space back since the store was opened.
  private let hasRefusedSpace = ManagedAtomic<Bool>(false)
  private let device: any BlockDevice
  private let space: SpaceMap
  private let checkpoints: CheckpointRunner
  private let checkpointer: Checkpointer

  init(_ checkpoints: CheckpointRunner, _ checkpointer: Checkpointer) {
    (device, space) = (checkpoints.device, checkpoints.space)
    (self.checkpoints, self.checkpointer) = (checkpoints, checkpointer)
  }

  private var blockSize: BlockSize { checkpoints.blockSize }

  /// Whether the thread in the background should leave the host alone: it ends, or somebody gives all back.
  private var isInterrupted: Bool {
    checkpointer.isStopping || reclaimingCount.load(ordering: .relaxed) > 0
  }

  /// How many parts of the store a quiet one is searched for at once: 2 GiB.
  private static var partsAtOnce: Int { 16 }

  /// Gives the host back what is free, as far as the device can, but for `blockCount` blocks; all of it only as long as
  /// nobody changes anything.
  func trim(leaving blockCount: UInt64) throws(ExtentFSError) {
    let before = checkpoints.activity
    let size: TrimSize = blockCount == 0 ? .small : .large
    var rest = blockCount == 0 ? .max : space.trimmableBlockCount(size)
    while rest > blockCount, blockCount > 0 || checkpoints.activity == before, !isInterrupted,
      let run = space.nextTrim(size)
    {
      // A device that cannot discard keeps the space, and nothing else changes.
      if let refusal = try discard(run) { logRefusal(refusal, of: run) }
      rest = rest.saturatingSubtract(run.count)
    }
  }

  /// Looks in the next parts of the store for what the host holds of free blocks, and gives it back, as long as nobody changes anything.
  /// False where all parts have been looked at since the store was opened.
  ///
  /// - Throws: also where the device cannot tell.
  func reclaimSome() throws(ExtentFSError) -> Bool {
    let before = checkpoints.activity
    for _ in 0..<Self.partsAtOnce {
      guard checkpoints.activity == before, !isInterrupted else { break }
      guard let part = space.nextReclaimPart() else { return false }
      try space.markAllocated(in: part, isUnknown: false)
      try trim(leaving: 0)
      space.didReclaim(part)
    }
    return true
  }

  /// Runs `body` while the thread in the background gives nothing back, which would not be counted.
  func withoutBackground<Result>(_ body: () throws(ExtentFSError) -> Result) throws(ExtentFSError) -> Result {
    reclaimingCount.wrappingIncrement(ordering: .relaxed)
    defer { reclaimingCount.wrappingDecrement(ordering: .relaxed) }
    return try body()
  }

  /// Gives the host back all that it holds of free blocks. On a device that cannot tell what it holds: all that is free.
  func reclaimAll(
    _ progress: (_ done: UInt64, _ total: UInt64) throws(ExtentFSError) -> Void
  ) throws(ExtentFSError) -> ReclaimedSpace {
    var found = ReclaimedSpace()
    space.endMetadataRun()
    var position: UInt64 = 0
    while let part = space.reclaimPart(from: position) {
      try mark(part, &found.isKnown)
      position = part.lowerBound
      while let run = space.nextTrim(.small, in: position..<part.upperBound) {
        found.byteCount += try giveBack(run, isKnown: found.isKnown)
        position = run.block + run.count
      }
      space.didReclaim(part)
      position = part.upperBound
      try progress(position, space.blockCount)
    }
    return found
  }

  /// The first refusal is worth telling, the others only to those who look for a fault.
  private func logRefusal(_ refusal: DeviceError, of run: PhysicalRun) {
    let isFirst = !hasRefusedSpace.exchange(true, ordering: .relaxed)
    checkpoints.log.write(
      isFirst ? .notice : .debug, "the device does not take free space back",
      [(.error, "\(refusal)"), (.firstBlock, "\(run.block)"), (.blocks, "\(run.count)")])
  }

  private func mark(_ part: Range<UInt64>, _ isKnown: inout Bool) throws(ExtentFSError) {
    do throws(ExtentFSError) {
      return try space.markAllocated(in: part, isUnknown: !isKnown)
    } catch {
      guard case .device(let cause) = error.code, cause.operation == .findAllocated, cause.errno == EOPNOTSUPP else {
        throw error
      }
    }
    isKnown = false
    try space.markAllocated(in: part, isUnknown: true)
  }

  /// Gives the run back, which `nextTrim` gave, and returns how many bytes of storage the host held for it.
  private func giveBack(_ run: PhysicalRun, isKnown: Bool) throws(ExtentFSError) -> UInt64 {
    let byteCount: UInt64
    do throws(ExtentFSError) {
      byteCount = try isKnown ? space.allocatedByteCount(run) : blockSize.offset(of: run.count)
    } catch {
      try space.didTrim(run)
      throw error
    }
    if let refusal = try discard(run) { throw ExtentFSError(refusal) }
    return byteCount
  }

  /// Gives the run back, which `nextTrim` gave, and lets it be used again; returns why the device would not have it.
  private func discard(_ run: PhysicalRun) throws(ExtentFSError) -> DeviceError? {
    var refusal: DeviceError?
    do throws(DeviceError) {
      try device.giveBack(blockSize.offset(of: run.block)..<blockSize.offset(of: run.block + run.count))
    } catch {
      refusal = error
    }
    try space.didTrim(run)
    return refusal
  }
}
