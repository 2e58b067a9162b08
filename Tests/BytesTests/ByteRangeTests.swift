import Bytes
import Testing

@Suite struct ByteRangeTests {
  private let largest = UInt64(Int64.max)

  @Test func `a range of bytes ends at 2^63 - 1 at the latest`() {
    #expect(Range(offset: 0, byteCount: 0) == 0..<0)
    #expect(Range(offset: 7, byteCount: 3) == 7..<10)
    #expect(Range(offset: largest, byteCount: 0) == largest..<largest)
    #expect(Range(offset: largest - 1, byteCount: 1) == largest - 1..<largest)
    #expect(Range(offset: 0, byteCount: Int.max) == 0..<largest)
    #expect(Range(offset: 0, byteCount: largest) == 0..<largest)
  }

  @Test func `a range that ends later or has a negative count is none`() {
    #expect(Range(offset: largest, byteCount: 1) == nil)
    #expect(Range(offset: 1, byteCount: Int.max) == nil)
    #expect(Range(offset: largest + 1, byteCount: 0) == nil)
    #expect(Range(offset: .max, byteCount: 0) == nil)
    #expect(Range(offset: .max, byteCount: 1) == nil)
    #expect(Range(offset: .max, byteCount: UInt64.max) == nil)
    #expect(Range(offset: 0, byteCount: largest + 1) == nil)
    #expect(Range(offset: 0, byteCount: -1) == nil)
    #expect(Range(offset: 5, byteCount: Int.min) == nil)
  }

  @Test func `the length is right where count would trap`() {
    #expect((0..<UInt64.max).length == .max)
    #expect((5..<5 as Range<UInt64>).length == 0)
  }
}
