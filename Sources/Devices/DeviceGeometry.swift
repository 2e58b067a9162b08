/// The units in which a device works, which cost nothing to keep to and something to cut through. Both are powers of two.
package struct DeviceGeometry: Sendable, Equatable {
  /// What the device writes as a whole, in bytes: when the power goes during a write to a part of it, all of it may be lost. 1 for one
  /// whose bytes are each their own.
  package var sectorByteCount: UInt64 = 1
  /// The smallest piece, at a multiple of its length, whose storage the device can give back alone, in bytes.
  package var discardByteCount: UInt64 = 4096

  /// The units of a device; a length that is not a power of two is rounded up to one.
  package init(sectorByteCount: UInt64 = 1, discardByteCount: UInt64 = 4096) {
    self.sectorByteCount = Self.roundedUp(sectorByteCount)
    self.discardByteCount = Self.roundedUp(discardByteCount)
  }

  private static func roundedUp(_ byteCount: UInt64) -> UInt64 {
    guard byteCount > 1 else { return 1 }
    guard byteCount <= 1 << 63 else { return 1 << 63 }
    return 1 << UInt64(UInt64.bitWidth - (byteCount - 1).leadingZeroBitCount)
  }
}
