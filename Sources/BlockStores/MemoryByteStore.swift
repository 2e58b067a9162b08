internal import Bytes
internal import Devices
internal import Glibc

/// A byte store in memory: one contiguous array of bytes per file, as the simplest file systems in memory keep it.
///
/// Bytes that were never written take no memory, and `zero` and `truncate` give memory back, but the file is one range
/// of addresses: one that outgrows its range moves.
///
/// Thread safety: one reader-writer lock guards all files and their bytes.
public final class MemoryByteStore: ByteStore {
  private let files = ReadWriteLocked<[Inode: File]>(rank: .memoryFiles, [:])

  private struct File {
    /// Holds zeroes from `byteCount` on.
    var device: MemoryDevice
    var byteCount: UInt64
  }

  /// The addresses that a small file reserves.
  private static let leastReservation: UInt64 = 64 << 20

  /// An empty store.
  public init() {}

  public func read(_ inode: Inode, into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) throws(StoreError)
    -> Int
  {
    try files.withReadLock { files throws(StoreError) in
      guard let file = files[inode], offset < file.byteCount else { return 0 }
      let count = Int(min(UInt64(buffer.count), file.byteCount - offset))
      try onDevice { () throws(DeviceError) in
        try unsafe file.device.read(into: UnsafeMutableRawBufferPointer(rebasing: buffer[..<count]), at: offset)
      }
      return count
    }
  }

  public func write(_ inode: Inode, _ bytes: UnsafeRawBufferPointer, at offset: UInt64) throws(StoreError) {
    guard let range = Range(offset: offset, byteCount: bytes.count) else {
      throw .beyondLargestFile(offset, bytes.count)
    }
    guard !range.isEmpty else { return }
    try files.withWriteLock { files throws(StoreError) in
      let file = try resized(files[inode], to: max(files[inode]?.byteCount ?? 0, range.upperBound))
      try onDevice { () throws(DeviceError) in try unsafe file.device.write(bytes, at: offset) }
      files[inode] = file
    }
  }

  public func zero(_ inode: Inode, in range: Range<UInt64>) throws(StoreError) {
    try files.withWriteLock { files throws(StoreError) in
      guard let file = files[inode] else { return }
      try onDevice { () throws(DeviceError) in try file.device.discard(range.clamped(to: 0..<file.byteCount)) }
    }
  }

  public func truncate(_ inode: Inode, to byteCount: UInt64) throws(StoreError) {
    guard byteCount <= UInt64(Int64.max) else { throw .beyondLargestFile(byteCount, 0) }
    try files.withWriteLock { files throws(StoreError) in files[inode] = try resized(files[inode], to: byteCount) }
  }

  public func remove(_ inode: Inode) throws(StoreError) {
    files.withWriteLock { _ = $0.removeValue(forKey: inode) }
  }

  public func byteCount(of inode: Inode) throws(StoreError) -> UInt64 {
    files.withReadLock { $0[inode]?.byteCount ?? 0 }
  }

  /// `file` with another size; one that lies at other addresses, where it outgrew its own.
  private func resized(_ file: File?, to byteCount: UInt64) throws(StoreError) -> File {
    guard var file else {
      return File(device: try reserve(max(byteCount, Self.leastReservation)), byteCount: byteCount)
    }
    if byteCount < file.byteCount {
      try onDevice { () throws(DeviceError) in try file.device.discard(byteCount..<file.byteCount) }
    } else if byteCount > file.device.byteCount {
      let device = try reserveGenerously(byteCount)
      try copy(file.device, file.byteCount, to: device)
      file.device = device
    }
    file.byteCount = byteCount
    return file
  }

  /// Twice as many addresses, so that a file that goes on growing seldom moves; just enough where there are not so many.
  private func reserveGenerously(_ byteCount: UInt64) throws(StoreError) -> MemoryDevice {
    let (twice, overflow) = byteCount.multipliedReportingOverflow(by: 2)
    do { return try reserve(overflow ? byteCount : twice) } catch { return try reserve(byteCount) }
  }

  private func reserve(_ byteCount: UInt64) throws(StoreError) -> MemoryDevice {
    do {
      return try MemoryDevice(byteCount: byteCount)
    } catch {
      throw StoreError(.outOfSpace, "no addresses for a file of \(byteCount) bytes in memory: \(error)")
    }
  }

  /// Copies what is not zero, so that memory which was never written stays so.
  private func copy(_ source: MemoryDevice, _ byteCount: UInt64, to destination: MemoryDevice) throws(StoreError) {
    let step: UInt64 = 64 << 10
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Int(step), alignment: 16)
    defer { unsafe buffer.deallocate() }
    for offset in stride(from: 0, to: byteCount, by: Int(step)) {
      let part = unsafe UnsafeMutableRawBufferPointer(rebasing: buffer[..<Int(min(step, byteCount - offset))])
      try onDevice { () throws(DeviceError) in
        try unsafe source.read(into: part, at: offset)
        if unsafe part.contains(where: { $0 != 0 }) {
          try unsafe destination.write(UnsafeRawBufferPointer(part), at: offset)
        }
      }
    }
  }

  private func onDevice<Result>(_ body: () throws(DeviceError) -> Result) throws(StoreError) -> Result {
    do { return try body() } catch { throw StoreError(error) }
  }
}
