import Bytes
import Testing

@Suite struct BlockSizeTests {
  static let sizes = [512, 4096, 65_536, 1 << 30]

  @Test func `only powers of two from 512 to 2^30 are block sizes`() {
    for shift in 9...30 { #expect(BlockSize(byteCount: 1 << shift)?.byteCount == 1 << shift) }
    for wrong in [Int.min, -512, -1, 0, 1, 256, 511, 513, 4095, 4097, 1536, 1 << 31, 1 << 62, Int.max] {
      #expect(BlockSize(byteCount: wrong) == nil)
    }
    #expect(BlockSize.standard.byteCount == 4096)
  }

  @Test(arguments: sizes) func `bytes around every border fall into their blocks`(byteCount: Int) throws {
    let size = try #require(BlockSize(byteCount: byteCount))
    let unit = UInt64(byteCount)
    for block in [0, 1, 2, 1000, UInt64.max / unit] {
      let start = size.offset(of: block)
      #expect(start == block * unit)
      #expect(size.block(at: start) == block)
      #expect(size.remainder(of: start) == 0)
      #expect(size.block(at: start + (unit - 1)) == block)
      #expect(size.remainder(of: start + (unit - 1)) == byteCount - 1)
      if start > 0 { #expect(size.block(at: start - 1) == block - 1) }
    }
  }

  @Test(arguments: sizes) func `as many blocks hold a number of bytes as its quotient rounded up`(byteCount: Int) throws
  {
    let size = try #require(BlockSize(byteCount: byteCount))
    let unit = UInt64(byteCount)
    #expect(size.blocks(toHold: 0) == 0)
    #expect(size.blocks(toHold: 1) == 1)
    #expect(size.blocks(toHold: unit - 1) == 1)
    #expect(size.blocks(toHold: unit) == 1)
    #expect(size.blocks(toHold: unit + 1) == 2)
    #expect(size.blocks(toHold: UInt64(Int64.max)) == (1 << 63) / unit)
    // No overflow on the way: the last block of all positions.
    #expect(size.blocks(toHold: .max) == UInt64.max / unit + 1)
  }

  @Test func `the blocks a range touches and those inside it are what counting gives`() throws {
    let size = try #require(BlockSize(byteCount: 512))
    let borders: [UInt64] = [0, 1, 511, 512, 513, 1023, 1024, 1025, 1536, 2047, 2048]
    for lower in borders {
      for upper in borders where upper >= lower {
        let blocks = (0..<5 as Range<UInt64>)
        let touched = blocks.filter { $0 * 512 < upper && ($0 + 1) * 512 > lower && lower < upper }
        let inside = blocks.filter { $0 * 512 >= lower && ($0 + 1) * 512 <= upper }
        #expect(Array(size.blocks(touching: lower..<upper)) == touched, "touching \(lower)..<\(upper)")
        #expect(Array(size.blocks(inside: lower..<upper)) == inside, "inside \(lower)..<\(upper)")
      }
    }
  }

  @Test func `ranges at the end of all positions have their blocks`() {
    let size = BlockSize.standard
    let last = UInt64.max >> 12
    #expect(size.blocks(touching: UInt64.max - 1..<UInt64.max) == last..<last + 1)
    #expect(size.blocks(inside: UInt64.max - 1..<UInt64.max).isEmpty)
    #expect(size.blocks(inside: 0..<UInt64.max) == 0..<last)
    #expect(size.blocks(touching: 0..<UInt64.max) == 0..<last + 1)
  }
}
