import Checksums
import LacunaTestSupport
import Testing

@Suite struct CRC32CTests {
  private func checksum(_ bytes: some Sequence<UInt8>, continuing previous: UInt32 = 0) -> UInt32 {
    Array(bytes).withUnsafeBytes { CRC32C.checksum($0, continuing: previous) }
  }

  /// The definition, a bit at a time.
  private func slowChecksum(_ bytes: some Sequence<UInt8>) -> UInt32 {
    var register = ~UInt32(0)
    for byte in bytes {
      register ^= UInt32(byte)
      for _ in 0..<8 { register = register & 1 == 0 ? register >> 1 : (register >> 1) ^ 0x82F6_3B78 }
    }
    return ~register
  }

  @Test func `known checksums come out`() {
    #expect(checksum("123456789".utf8) == 0xE306_9283)
    #expect(checksum([]) == 0)
    // RFC 3720, B.4.
    #expect(checksum(repeatElement(0, count: 32)) == 0x8A91_36AA)
    #expect(checksum(repeatElement(0xFF, count: 32)) == 0x62A8_AB43)
    #expect(checksum(0..<32) == 0x46DD_794E)
    #expect(checksum((0..<32).reversed()) == 0x113F_DB5C)
  }

  @Test func `every length and alignment agrees with the definition`() throws {
    try withSeededGenerator { generator in
      let bytes = generator.nonZeroBytes(1200)
      for length in Array(0...300) + [511, 512, 1023, 1024, 1100] {
        let start = generator.number(below: 65)
        let part = bytes[start..<start + length]
        let found = bytes.withUnsafeBytes {
          CRC32C.checksum(UnsafeRawBufferPointer(rebasing: $0[start..<start + length]))
        }
        try check(found == slowChecksum(part), "\(length) bytes at \(start)")
      }
    }
  }

  @Test func `a checksum goes on where another ended`() throws {
    try withSeededGenerator { generator in
      let bytes = generator.nonZeroBytes(300)
      for cut in 0...300 {
        try check(checksum(bytes[cut...], continuing: checksum(bytes[..<cut])) == checksum(bytes), "cut at \(cut)")
      }
    }
  }

  @Test func `a number counts as its little-endian bytes`() {
    #expect(CRC32C.checksum(0x0807_0605_0403_0201) == checksum(1...8))
    #expect(CRC32C.checksum(0x0807_0605_0403_0201, continuing: checksum([9, 9])) == checksum([9, 9] + Array(1...8)))
  }
}
