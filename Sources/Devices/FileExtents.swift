import CLinux
import Glibc
import SystemPackage

/// Asks a file system where it has storage for a file.
enum FileExtents {
  /// How many extents are asked for at once.
  private static var countMax: Int { 128 }

  /// The first runs of `range` that have storage; or data, where the file system does not tell more. Empty where there are none.
  static func find(_ descriptor: FileDescriptor, in range: Range<UInt64>) throws(Errno) -> [Range<UInt64>] {
    guard !range.isEmpty else { return [] }
    do throws(Errno) {
      return try findExtents(descriptor, in: range)
    } catch {
      guard error == .notSupported || error == .inappropriateIOCTLForDevice else { throw error }
      return try findData(descriptor, in: range)
    }
  }

  /// See Documentation/filesystems/fiemap.rst of Linux. What was written and has no place yet is among the extents.
  private static func findExtents(
    _ descriptor: FileDescriptor, in range: Range<UInt64>
  ) throws(Errno) -> [Range<UInt64>] {
    let header = MemoryLayout<fiemap>.size
    let stride = MemoryLayout<fiemap_extent>.stride
    let memory = UnsafeMutableRawPointer.allocate(byteCount: header + countMax * stride, alignment: 8)
    defer { unsafe memory.deallocate() }
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0, count: header + countMax * stride)
    var request = unsafe memory.load(as: fiemap.self)
    request.fm_start = range.lowerBound
    request.fm_length = range.upperBound - range.lowerBound
    request.fm_extent_count = UInt32(countMax)
    unsafe memory.storeBytes(of: request, as: fiemap.self)
    // Safe: the kernel fills in at most as many extents as the request says there is room for.
    try SystemCalls.check { unsafe ioctl(descriptor.rawValue, lacuna_FS_IOC_FIEMAP, memory) }
    let count = min(Int(unsafe memory.load(as: fiemap.self).fm_mapped_extents), countMax)
    var runs: [Range<UInt64>] = []
    for index in 0..<count {
      // Safe: inside the memory, see `count`.
      let extent = unsafe memory.load(fromByteOffset: header + index * stride, as: fiemap_extent.self)
      let end = extent.fe_logical.addingReportingOverflow(extent.fe_length)
      guard !end.overflow else { throw .ioError }
      let part = (extent.fe_logical..<end.partialValue).clamped(to: range)
      if !part.isEmpty { runs.append(adjoining: part) }
    }
    return runs
  }

  /// The first run that has data. See lseek(2). A file system that cannot tell says that all is data.
  private static func findData(_ descriptor: FileDescriptor, in range: Range<UInt64>) throws(Errno) -> [Range<UInt64>] {
    do throws(Errno) {
      let start = try seek(descriptor, range.lowerBound, SEEK_DATA)
      guard start < range.upperBound else { return [] }
      // There is a hole at the file's end, at the latest.
      return [start..<max(min(try seek(descriptor, start, SEEK_HOLE), range.upperBound), start + 1)]
    } catch .noSuchAddressOrDevice {
      return []
    } catch .invalidArgument {
      throw .notSupported
    }
  }

  private static func seek(_ descriptor: FileDescriptor, _ offset: UInt64, _ whence: Int32) throws(Errno) -> UInt64 {
    // Nobody else uses the file offset that this moves.
    let found = lseek(descriptor.rawValue, off_t(offset), whence)
    guard found >= 0 else { throw Errno(rawValue: Glibc.errno) }
    return UInt64(found)
  }
}

extension [Range<UInt64>] {
  /// Appends a run, or makes the last one longer where it ends where that begins.
  mutating func append(adjoining run: Range<UInt64>) {
    if let last, last.upperBound == run.lowerBound {
      self[count - 1] = last.lowerBound..<run.upperBound
    } else {
      append(run)
    }
  }
}
