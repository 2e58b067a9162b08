import Glibc

extension DeviceError {
  /// Refuses a range that does not lie inside a device of `deviceByteCount` bytes, however large its numbers are.
  @inline(__always)
  static func checkRange(
    _ operation: Operation, offset: UInt64, byteCount: Int, within deviceByteCount: UInt64
  ) throws(DeviceError) {
    let (end, overflows) = offset.addingReportingOverflow(UInt64(byteCount))
    if overflows || end > deviceByteCount {
      throw DeviceError(operation: operation, errno: EINVAL, offset: offset, byteCount: UInt64(byteCount))
    }
  }

  /// Refuses a range that does not lie inside a device of `deviceByteCount` bytes.
  static func checkRange(
    _ operation: Operation, _ range: Range<UInt64>, within deviceByteCount: UInt64
  ) throws(DeviceError) {
    if range.upperBound > deviceByteCount {
      throw DeviceError(
        operation: operation, errno: EINVAL, offset: range.lowerBound,
        byteCount: range.upperBound - range.lowerBound)
    }
  }
}

extension Range<UInt64> {
  /// The part of this range that whole blocks of `byteCount` bytes, a power of two, make up.
  ///
  /// Where there is no whole block, it is the empty range at the upper bound, so that what lies before the result and
  /// what lies after it always make up the rest of this range.
  func wholeBlocks(of byteCount: UInt64) -> Range<UInt64> {
    let mask = byteCount - 1
    let (sum, overflows) = lowerBound.addingReportingOverflow(mask)
    let start = sum & ~mask
    let end = upperBound & ~mask
    return overflows || start >= end ? upperBound..<upperBound : start..<end
  }
}
