import Atomics

/// Counts what was done to a device. Any thread may count; counting orders nothing.
package final class DeviceCounters: Sendable {
  private let readBytes = ManagedAtomic<UInt64>(0)
  private let writtenBytes = ManagedAtomic<UInt64>(0)
  private let syncs = ManagedAtomic<UInt64>(0)

  /// Bytes that were read.
  package var readByteCount: UInt64 { readBytes.load(ordering: .relaxed) }
  /// Bytes that were written by calls; not those that were stored in a mapping.
  package var writtenByteCount: UInt64 { writtenBytes.load(ordering: .relaxed) }
  /// Syncs that succeeded.
  package var syncCount: UInt64 { syncs.load(ordering: .relaxed) }

  @inline(__always)
  func noteRead(_ byteCount: Int) { readBytes.wrappingIncrement(by: UInt64(byteCount), ordering: .relaxed) }

  @inline(__always)
  func noteWrite(_ byteCount: Int) { writtenBytes.wrappingIncrement(by: UInt64(byteCount), ordering: .relaxed) }

  @inline(__always)
  func noteSync() { syncs.wrappingIncrement(ordering: .relaxed) }
}
