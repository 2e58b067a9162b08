import Atomics
import Bytes
import Glibc
import SystemPackage

/// A device in this process's memory, which is gone when the process is.
///
/// Address space for the greatest length is reserved once; a page takes memory only from the first write to it until
/// it is discarded. No memory is promised beforehand: when the machine runs out of it, a write does not fail but the
/// kernel ends a process, as it does for all memory on Linux.
///
/// Pages are small ones even where the system would make huge ones by itself: a huge page would hold 512 times
/// the memory for one block written, and discarding a part of one gives nothing back.
///
/// Any number of threads may call it, and no call takes a lock. Reads and writes are plain copies, so that two
/// overlapping ones of which one writes are a data race: the stores above never let a reader meet a writer on the same
/// bytes.
@safe package final class MemoryDevice: BlockDevice, @unchecked Sendable {
  // Sendable because `base` never changes, what it points to follows the rule above, and the rest is atomic.
  private let base: UnsafeMutableRawPointer
  private let currentByteCount: ManagedAtomic<UInt64>
  /// The length in bytes that `grow` cannot pass.
  package let maximumByteCount: UInt64

  /// Makes a device of `byteCount` bytes, all zero, that can grow to `maximumByteCount` bytes.
  ///
  /// - Throws: `DeviceError` of the operation `open`: with `EINVAL` where `maximumByteCount` is less than `byteCount`,
  ///   and with `ENOMEM` where it is more than the address space has room for.
  package init(byteCount: UInt64, maximumByteCount: UInt64) throws(DeviceError) {
    do throws(Errno) {
      guard byteCount <= maximumByteCount else { throw .invalidArgument }
      unsafe base = try MemoryMapping.reserve(maximumByteCount)
    } catch {
      throw DeviceError(operation: .open, errno: error.rawValue, byteCount: maximumByteCount)
    }
    self.maximumByteCount = maximumByteCount
    currentByteCount = ManagedAtomic(byteCount)
  }

  /// Makes a device of `byteCount` bytes, all zero, that cannot grow.
  ///
  /// - Throws: `DeviceError` of the operation `open`, as for `init(byteCount:maximumByteCount:)`.
  package convenience init(byteCount: UInt64) throws(DeviceError) {
    try self.init(byteCount: byteCount, maximumByteCount: byteCount)
  }

  deinit {
    // Safe: no call can run any more, since each holds the device.
    unsafe MemoryMapping.release(base, maximumByteCount)
  }

  /// The device's length in bytes.
  package var byteCount: UInt64 { currentByteCount.load(ordering: .acquiring) }

  /// Fills `buffer` with the bytes that start at `offset`.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device.
  package func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    let byteCount = buffer.count
    try DeviceError.checkRange(.read, offset: offset, byteCount: byteCount, within: self.byteCount)
    guard let destination = buffer.baseAddress else { return }
    // Safe: the range is inside the device, hence inside the reservation, which fits an `Int`.
    unsafe memcpy(destination, base + Int(offset), byteCount)
  }

  /// Writes all of `buffer` at `offset`.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device.
  package func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    let byteCount = buffer.count
    try DeviceError.checkRange(.write, offset: offset, byteCount: byteCount, within: self.byteCount)
    guard let source = buffer.baseAddress else { return }
    // Safe: as in `read`.
    unsafe memcpy(base + Int(offset), source, byteCount)
  }

  /// Does nothing: memory has no medium below it.
  package func sync() throws(DeviceError) {}

  /// Gives the memory of the whole pages of `range` back and fills what is left at its edges with zeroes.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device.
  package func discard(_ range: Range<UInt64>) throws(DeviceError) {
    LockOrder.requireMayWait()
    try DeviceError.checkRange(.discard, range, within: byteCount)
    let pages = range.wholeBlocks(of: MemoryMapping.pageByteCount)
    zero(range.lowerBound..<pages.lowerBound)
    zero(pages.upperBound..<range.upperBound)
    guard !pages.isEmpty else { return }
    // Safe: as in `read`.
    let isGivenBack = unsafe MemoryMapping.discard(base + Int(pages.lowerBound), pages.upperBound - pages.lowerBound)
    // Locked memory cannot be given back (nbdkit --swap locks all of it), but it can be made to read as promised.
    if !isGivenBack { zero(pages) }
  }

  /// Which pages of `range` are in memory.
  ///
  /// - Throws: `DeviceError` with `EINVAL` outside the device, else what the system reported.
  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    LockOrder.requireMayWait()
    try DeviceError.checkRange(.findAllocated, range, within: byteCount)
    let page = MemoryMapping.pageByteCount
    let first = range.lowerBound / page * page
    var runs: [Range<UInt64>] = []
    do throws(Errno) {
      // Safe: the device's length is inside the reservation.
      try unsafe MemoryMapping.forEachPage(base + Int(first), range.upperBound - first) { offset, isResident in
        let part = (first + offset..<first + offset + page).clamped(to: range)
        if isResident, !part.isEmpty { runs.append(adjoining: part) }
      }
    } catch {
      throw DeviceError(
        operation: .findAllocated, errno: error.rawValue, offset: range.lowerBound,
        byteCount: range.upperBound - range.lowerBound)
    }
    return runs
  }

  /// Makes the device at least `byteCount` bytes long; the new bytes read as zeroes and take no memory.
  ///
  /// - Throws: `DeviceError` with `ENOSPC` beyond `maximumByteCount`.
  package func grow(to byteCount: UInt64) throws(DeviceError) {
    LockOrder.requireMayWait()
    guard byteCount <= maximumByteCount else {
      throw DeviceError(operation: .grow, errno: ENOSPC, byteCount: byteCount)
    }
    var old = currentByteCount.load(ordering: .relaxed)
    while old < byteCount {
      let (isStored, found) = currentByteCount.weakCompareExchange(
        expected: old, desired: byteCount, ordering: .acquiringAndReleasing)
      if isStored { return }
      old = found
    }
  }

  /// The memory that the device's pages take now, in bytes: a measure for tests and statistics.
  ///
  /// It asks about every page, so that its cost grows with the device's length.
  ///
  /// - Throws: `DeviceError` of the operation `read` where the system does not tell.
  package func residentByteCount() throws(DeviceError) -> UInt64 {
    do throws(Errno) {
      // Safe: the device's length is inside the reservation.
      return try unsafe MemoryMapping.residentByteCount(base, byteCount)
    } catch {
      throw DeviceError(operation: .read, errno: error.rawValue, byteCount: byteCount)
    }
  }

  private func zero(_ range: Range<UInt64>) {
    guard !range.isEmpty else { return }
    // Safe: callers pass ranges inside the device.
    unsafe memset(base + Int(range.lowerBound), 0, Int(range.upperBound - range.lowerBound))
  }
}
