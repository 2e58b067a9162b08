internal import Checksums

/// The checksum of a metadata block: of its bytes, and of where it belongs.
package enum MetadataChecksum {
  /// The CRC32C over `bytes` followed by the number of the block they belong in (8 bytes, little-endian), so that a
  /// block which was written to, or read from, another place shows.
  package static func checksum(_ bytes: UnsafeRawBufferPointer, block: UInt64) -> UInt32 {
    // Safe: the caller's buffer lives during the call.
    let body = unsafe CRC32C.checksum(bytes)
    return CRC32C.checksum(block, continuing: body)
  }
}
