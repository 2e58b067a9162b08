import Glibc

/// Where a store's bytes live: the seam below which nothing knows what a store is.
///
/// Offsets and lengths are in bytes and need no alignment. A device may be called from any number of threads at once.
/// Two calls on overlapping ranges, one of which writes, have no order unless one returned before the other began.
///
/// Durability: what `write`, `discard` and `grow` did survives a power cut only once a `sync` that began after they
/// returned has itself returned. Until then any part of it, in any order, may or may not be on the medium.
package protocol BlockDevice: Sendable {
  /// The device's length in bytes. It never falls.
  var byteCount: UInt64 { get }

  /// The units in which it works. They never change.
  var geometry: DeviceGeometry { get }

  /// Fills `buffer` with the bytes that start at `offset`.
  ///
  /// - Throws: `DeviceError` with `EINVAL` where the range ends past `byteCount`, else what the system reported.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(DeviceError)

  /// Writes all of `buffer` at `offset`. It returns when the bytes are in the kernel's hands, not on the medium.
  ///
  /// - Throws: `DeviceError` with `EINVAL` where the range ends past `byteCount`, else what the system reported; the
  ///   range then holds old and new bytes in any mixture.
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError)

  /// Reads all pieces of `batch`, in any order. Costs as few system calls or messages as the device can manage, where as
  /// many calls of `read(into:at:)` would cost one each.
  ///
  /// The pieces may lie anywhere on the device, but neither they nor their buffers overlap. A batch of no pieces does nothing.
  ///
  /// - Throws: `DeviceError` as for `read(into:at:)`; what it says of offset and length may be of a part of the batch. Any
  ///   piece may have been read then, whole or in part.
  func read(_ batch: [DeviceRead]) throws(DeviceError)

  /// Writes all pieces of `batch`, in any order, as `read` reads them. The pieces do not overlap. A power cut may leave any
  /// of them, whole or in part, as for so many calls of `write(_:at:)` that no `sync` covers.
  ///
  /// - Throws: `DeviceError` as for `write(_:at:)`; what it says of offset and length may be of a part of the batch. Any
  ///   piece may have been written then, whole or in part.
  func write(_ batch: [DeviceWrite]) throws(DeviceError)

  /// Makes durable everything that completed before this call began.
  ///
  /// - Throws: `DeviceError`. After a failure nothing is known of what was written since the last success.
  func sync() throws(DeviceError)

  /// Gives the storage of `range` back; the range reads as zeroes from then on.
  ///
  /// - Throws: `DeviceError` with `EINVAL` where the range ends past `byteCount`, and with `EOPNOTSUPP` where the
  ///   device cannot; the bytes are then unchanged.
  func discard(_ range: Range<UInt64>) throws(DeviceError)

  /// As `discard`, but what the range reads as then, nobody knows, so that more devices can.
  func giveBack(_ range: Range<UInt64>) throws(DeviceError)

  /// Where in `range` the system below holds storage, also for what was never written: the first runs, in order, none touching the next.
  /// Ask again from the end of the last one on, until the answer is empty.
  ///
  /// - Throws: `DeviceError` with `EINVAL` where the range ends past `byteCount`, with `EOPNOTSUPP` where the device cannot
  ///   tell, else what the system reported.
  func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>]

  /// Whether `grow` can ever make the device longer.
  var canGrow: Bool { get }

  /// Makes the device at least `byteCount` bytes long; the new bytes read as zeroes.
  ///
  /// - Throws: `DeviceError` with `ENOSPC` or `EFBIG` where there is no room, and `EOPNOTSUPP` where the length is
  ///   fixed.
  func grow(to byteCount: UInt64) throws(DeviceError)

  /// Begins to bring `range` into the system's memory, so that a read finds it there. It is a wish, and waits for no byte.
  func readAhead(_ range: Range<UInt64>)

  /// Drops what the system keeps of `range` in memory, as far as it is on the medium, so that the next read asks that.
  func forgetCached(_ range: Range<UInt64>)

  /// A medium for a journal in `range`, which begins at a multiple of the page size. Until it goes, the range is not discarded.
  func journalMedium(_ range: Range<UInt64>) -> any JournalMedium
}

extension BlockDevice {
  /// Bytes, and pages of memory.
  package var geometry: DeviceGeometry { DeviceGeometry() }
}

extension BlockDevice {
  package func giveBack(_ range: Range<UInt64>) throws(DeviceError) { try discard(range) }

  /// Everything is near.
  package func readAhead(_ range: Range<UInt64>) {}

  /// It cannot tell.
  package func allocatedRuns(in range: Range<UInt64>) throws(DeviceError) -> [Range<UInt64>] {
    try DeviceError.checkRange(.findAllocated, range, within: byteCount)
    throw DeviceError(
      operation: .findAllocated, errno: EOPNOTSUPP, offset: range.lowerBound,
      byteCount: range.upperBound - range.lowerBound)
  }

  /// Nothing is kept.
  package func forgetCached(_ range: Range<UInt64>) {}

  /// One that writes.
  package func journalMedium(_ range: Range<UInt64>) -> any JournalMedium { WrittenJournal(self, at: range.lowerBound) }
}

extension BlockDevice {
  package var canGrow: Bool { true }
}
