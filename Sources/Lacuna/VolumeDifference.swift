internal import Bytes
internal import Devices
internal import ExtentFS

/// A snapshot as it is seen from an older one: its bytes, with what is the same in both as extents of their own.
struct VolumeDifference: Sendable {
  let old: DiskVolume
  let new: DiskVolume
  let engine: Engine

  /// Calls `visit` with maximal ranges of one kind that cover `range`, in order, until it returns false.
  func forEachExtent(
    in range: Range<UInt64>, _ visit: (Range<UInt64>, VolumeExtent.Kind) throws(LacunaError) -> Bool
  ) throws(LacunaError) {
    var next = range.lowerBound
    var shouldContinue = true
    var failure: LacunaError?
    try onDisk { () throws(ExtentFSError) in
      try engine.forEachDifference(from: old, to: new, in: range) { bytes, kind in
        do throws(LacunaError) {
          if next < bytes.lowerBound { shouldContinue = try visit(next..<bytes.lowerBound, .unchanged) }
          if shouldContinue { shouldContinue = try visit(bytes, kind == .data ? .data : .hole) }
        } catch {
          (failure, shouldContinue) = (error, false)
        }
        next = bytes.upperBound
        return shouldContinue
      }
    }
    if let failure { throw failure }
    if shouldContinue, next < range.upperBound { _ = try visit(next..<range.upperBound, .unchanged) }
  }
}
