internal import CISAL

/// CRC-32C (Castagnoli), the checksum of everything that the store keeps: the polynomial of iSCSI, ext4 and btrfs.
///
/// It is ISA-L's, which uses the processor's instructions for it. ISA-L leaves the two inversions of the standard
/// definition to its caller; here they are done, so that results are what other programs compute.
public enum CRC32C {
  /// The checksum of `buffer`, or of what `previous` covers followed by `buffer`.
  ///
  /// - Parameter previous: the checksum of the bytes before; 0, the checksum of no bytes, where there are none.
  public static func checksum(_ buffer: UnsafeRawBufferPointer, continuing previous: UInt32 = 0) -> UInt32 {
    guard let base = buffer.baseAddress else { return previous }
    // Safe: the bytes are the caller's for the length of the call.
    return unsafe ~update(~previous, base, buffer.count)
  }

  /// The checksum of what `previous` covers followed by the eight bytes of `number`, little-endian.
  public static func checksum(_ number: UInt64, continuing previous: UInt32 = 0) -> UInt32 {
    var bytes = number.littleEndian
    // Safe: the pointer is used inside the closure only.
    return unsafe withUnsafeBytes(of: &bytes) { unsafe checksum($0, continuing: previous) }
  }

  /// Runs `count` bytes through the register, without the inversions. ISA-L counts in an `Int32`.
  static func update(_ register: UInt32, _ base: UnsafeRawPointer, _ count: Int) -> UInt32 {
    var register = register
    var done = 0
    while done < count {
      let part = min(count - done, largestPart)
      // Safe: the part lies inside what the caller passed. ISA-L lacks the `const`: it does not write.
      register = unsafe crc32_iscsi(
        UnsafeMutablePointer(mutating: (base + done).assumingMemoryBound(to: UInt8.self)), Int32(part), register)
      done += part
    }
    return register
  }

  /// What is passed to ISA-L at once, at most.
  private static var largestPart: Int { 1 << 30 }
}
