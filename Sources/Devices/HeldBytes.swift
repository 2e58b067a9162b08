import Bytes

/// The first bytes of a device, in memory, while they are held back from it. Any thread may call it.
final class HeldBytes: Sendable {
  private let bytes = Locked<[UInt8]>(rank: .fileMemory, [])

  /// Holds the first `count` bytes, all zero, from now on.
  func hold(_ count: Int) { bytes.withLock { $0 = [UInt8](repeating: 0, count: count) } }

  /// Holds none any more; returns what they were.
  func release() -> [UInt8] {
    bytes.withLock { bytes in
      defer { bytes = [] }
      return bytes
    }
  }

  /// Fills the front of `buffer` with what is held from `offset` on; returns how many bytes that is.
  func read(into buffer: UnsafeMutableRawBufferPointer, at offset: UInt64) -> Int {
    bytes.withLock { bytes in
      guard offset < UInt64(bytes.count) else { return 0 }
      let count = min(buffer.count, bytes.count - Int(offset))
      // Safe: both have as many bytes.
      unsafe bytes.withUnsafeBytes { held in
        unsafe buffer.copyMemory(from: UnsafeRawBufferPointer(rebasing: held[Int(offset)..<Int(offset) + count]))
      }
      return count
    }
  }

  /// Holds the front of `buffer` as what is at `offset`; returns how many bytes that is.
  func write(_ buffer: UnsafeRawBufferPointer, at offset: UInt64) -> Int {
    bytes.withLock { bytes in
      guard offset < UInt64(bytes.count) else { return 0 }
      let count = min(buffer.count, bytes.count - Int(offset))
      // Safe: both have as many bytes.
      unsafe bytes.withUnsafeMutableBytes { held in
        let place = unsafe UnsafeMutableRawBufferPointer(rebasing: held[Int(offset)..<Int(offset) + count])
        unsafe place.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[..<count]))
      }
      return count
    }
  }
}
