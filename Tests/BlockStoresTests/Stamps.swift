import Glibc
import LacunaTestSupport

/// Blocks of 512 bytes that say who they are: the number of the block and a version, again and again.
///
/// Whoever reads one can tell whether it is all of one write, and which.
enum Stamp {
  static let byteCount = 512

  /// Fills a buffer of blocks, the first of which has the number `block`.
  static func fill(_ buffer: UnsafeMutableRawBufferPointer, from block: Int, version: Int) {
    for index in 0..<buffer.count / byteCount {
      guard let base = buffer.baseAddress.map({ $0 + index * byteCount }) else { return }
      base.storeBytes(of: block + index, as: Int.self)
      base.storeBytes(of: version, toByteOffset: 8, as: Int.self)
      var filled = 16
      while filled < byteCount {
        memcpy(base + filled, base, filled)
        filled *= 2
      }
    }
  }

  /// The version of the block in `buffer`, 0 where it is all zeroes.
  ///
  /// - Throws: `CheckFailure` where it is no whole stamp, or another block's.
  static func version(of buffer: UnsafeRawBufferPointer, block: Int) throws -> Int {
    guard let base = buffer.baseAddress, buffer.count == byteCount else { throw CheckFailure("not a block") }
    let (number, version) = (base.load(as: Int.self), base.load(fromByteOffset: 8, as: Int.self))
    // All words equal those two places behind them.
    guard memcmp(base, base + 16, byteCount - 16) == 0 else {
      let words = stride(from: 0, to: byteCount, by: 8).map { base.load(fromByteOffset: $0, as: Int.self) }
      throw CheckFailure("block \(block) is in pieces: \(words)")
    }
    if version == 0, number == 0 { return 0 }
    try check(number == block, "block \(block) holds block \(number), version \(version)")
    return version
  }
}
