import Atomics

/// A range of a device that a journal is kept in: its records go there one after the other, each a small write.
///
/// What is stored is as good as written: reads of the device return it, it outlives the process, and a `sync` that begins later
/// makes it durable. Thread safety: any thread; stores to overlapping ranges have no order unless the caller gives them one.
package protocol JournalMedium: Sendable {
  /// Stores `bytes` from `offset` on, counted from the beginning of the range; they lie in it.
  ///
  /// - Throws: as `BlockDevice.write`; the bytes' range then holds old and new ones in any mixture.
  func store(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError)

  /// How many bytes were stored so far without a call of `write`.
  var mappedByteCount: UInt64 { get }
}

/// What every device has: each store is a write.
package struct WrittenJournal: JournalMedium {
  private let device: any BlockDevice
  private let start: UInt64

  /// The range of `device` that begins at `start`.
  package init(_ device: any BlockDevice, at start: UInt64) {
    self.device = device
    self.start = start
  }

  package func store(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    try unsafe device.write(bytes, at: start + offset)
  }

  package var mappedByteCount: UInt64 { 0 }
}

/// What a file has: each store goes into a mapping, and does not wait for those who are writing to the file.
///
/// From the first store on that fails, writes do, beginning with all of its bytes: they put it right, or say why it cannot be.
final class MappedJournal: JournalMedium {
  private let mapping: MappedRange
  private let written: WrittenJournal
  private let usesMapping = ManagedAtomic(true)
  private let mapped = ManagedAtomic<UInt64>(0)

  /// The range of `device` that begins at `start` and is in `mapping`.
  init(_ mapping: MappedRange, _ device: FileDevice, at start: UInt64) {
    self.mapping = mapping
    written = WrittenJournal(device, at: start)
  }

  func store(_ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(DeviceError) {
    if usesMapping.load(ordering: .relaxed) {
      if unsafe mapping.store(bytes, at: Int(offset)) {
        mapped.wrappingIncrement(by: UInt64(bytes.count), ordering: .relaxed)
        return
      }
      usesMapping.store(false, ordering: .relaxed)
    }
    try unsafe written.store(bytes, at: offset)
  }

  var mappedByteCount: UInt64 { mapped.load(ordering: .relaxed) }
}
