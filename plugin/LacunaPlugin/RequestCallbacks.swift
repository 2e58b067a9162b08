import CNBDKit
import Lacuna

/// How many extents one answer holds at most: enough for any client, and little memory for one that asks for much.
///
/// A client that wants more asks again from where the answer ended.
private let extentsPerAnswerMax = 65_536

extension nbdkit_plugin {
  /// What a client does with a volume. Any thread may call any of these at any time.
  mutating func addRequestCallbacks() {
    unsafe pread = { handle, buffer, count, offset, _ in
      unsafe answer(handle) { connection throws(LacunaError) in
        let buffer = unsafe UnsafeMutableRawBufferPointer(start: buffer, count: Int(count))
        try unsafe RequestSize.check(UnsafeRawBufferPointer(buffer))
        try unsafe connection.volume.read(into: buffer, at: offset)
      }
    }

    unsafe pwrite = { handle, buffer, count, offset, flags in
      unsafe answer(handle) { connection throws(LacunaError) in
        let buffer = unsafe UnsafeRawBufferPointer(start: buffer, count: Int(count))
        try unsafe RequestSize.check(buffer)
        try unsafe connection.volume.write(buffer, at: offset, durably: flags.has(NBDKIT_FLAG_FUA))
      }
    }

    unsafe flush = { handle, _ in
      unsafe answer(handle) { connection throws(LacunaError) in try connection.volume.flush() }
    }

    unsafe trim = { handle, count, offset, flags in
      unsafe answer(handle) { connection throws(LacunaError) in
        try connection.volume.discard(range(from: offset, count), durably: flags.has(NBDKIT_FLAG_FUA))
      }
    }

    unsafe zero = { handle, count, offset, flags in
      unsafe answer(handle) { connection throws(LacunaError) in
        try connection.volume.zero(
          range(from: offset, count), mayTrim: flags.has(NBDKIT_FLAG_MAY_TRIM),
          onlyIfFast: flags.has(NBDKIT_FLAG_FAST_ZERO), durably: flags.has(NBDKIT_FLAG_FUA))
      }
    }

    unsafe cache = { handle, count, offset, _ in
      unsafe answer(handle) { connection throws(LacunaError) in
        try connection.volume.prefetch(range(from: offset, count))
      }
    }

    unsafe extents = { handle, count, offset, flags, answered in
      unsafe answer(handle) { connection throws(LacunaError) in
        // At most `count` bytes, so below 4 GiB: nbdkit before 1.38.6 aborts on an extent of 4 GiB or more.
        let range = range(from: offset, count)
        var extentsLeft = flags.has(NBDKIT_FLAG_REQ_ONE) ? 1 : extentsPerAnswerMax
        try connection.volume.forEachExtent(in: range) { extent in
          extentsLeft -= 1
          // Where nbdkit cannot take one it has said so; the ones before are a good answer, and no answer it refuses.
          return unsafe nbdkit_add_extent(answered, extent.offset, extent.byteCount, extent.kind.nbdkitType) == 0
            && extentsLeft > 0
        }
      }
    }
  }
}

extension VolumeExtent.Kind {
  fileprivate var nbdkitType: UInt32 {
    switch self {
    case .data: 0
    case .zero: UInt32(NBDKIT_EXTENT_ZERO)
    case .hole: UInt32(NBDKIT_EXTENT_ZERO | NBDKIT_EXTENT_HOLE)
    // What qcow2 says of clusters that its backing file has: not here, and not zero either.
    case .unchanged: UInt32(NBDKIT_EXTENT_HOLE)
    }
  }
}

extension UInt32 {
  /// Whether a callback's flags hold `flag`.
  fileprivate func has(_ flag: CInt) -> Bool { self & UInt32(bitPattern: flag) != 0 }
}

/// The `count` bytes from `offset` on.
///
/// An end beyond the last number there is becomes that number: it is past the end of every volume, which refuses it.
private func range(from offset: UInt64, _ count: UInt32) -> Range<UInt64> {
  let (end, overflow) = offset.addingReportingOverflow(UInt64(count))
  return offset..<(overflow ? .max : end)
}
