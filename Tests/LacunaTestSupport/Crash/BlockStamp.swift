import Glibc

/// Block contents that say what they are: which write of which block, in every sector.
///
/// ```
/// each 512 bytes   0  u64  the kind: of the ledger
///                  8  u64  the write
///                 16  u64  the block
///                 24  u64  the sector in the block
///                 32  u8[] from a table of random bytes, at a place that the four decide
/// ```
struct BlockStamp: Sendable, Equatable {
  static let sectorByteCount = 512
  private static let headerByteCount = 32

  var kind: UInt64
  var write: UInt64
  var block: UInt64

  /// Fills a block.
  func fill(_ buffer: UnsafeMutableRawBufferPointer) {
    guard let base = buffer.baseAddress else { return }
    for offset in stride(from: 0, to: buffer.count, by: Self.sectorByteCount) {
      let sector = UInt64(offset / Self.sectorByteCount)
      let words = base + offset
      words.storeBytes(of: kind, as: UInt64.self)
      words.storeBytes(of: write, toByteOffset: 8, as: UInt64.self)
      words.storeBytes(of: block, toByteOffset: 16, as: UInt64.self)
      words.storeBytes(of: sector, toByteOffset: 24, as: UInt64.self)
      memcpy(words + Self.headerByteCount, body(of: sector), Self.sectorByteCount - Self.headerByteCount)
    }
  }

  /// What a block holds in all of its sectors.
  enum Found: Equatable {
    case zeroes
    case stamp(BlockStamp)
    /// Neither zeroes nor one whole stamp; what is wrong, in words.
    case broken(String)
  }

  /// Finds out what a block holds.
  static func find(in buffer: UnsafeRawBufferPointer) -> Found {
    guard let base = buffer.baseAddress, buffer.count >= sectorByteCount else { return .zeroes }
    if base.loadUnaligned(as: UInt64.self) == 0, memcmp(base, base + 1, buffer.count - 1) == 0 { return .zeroes }
    let stamp = BlockStamp(at: base)
    for offset in stride(from: 0, to: buffer.count, by: sectorByteCount) {
      let sector = UInt64(offset / sectorByteCount)
      let here = BlockStamp(at: base + offset)
      guard here == stamp, (base + offset).loadUnaligned(fromByteOffset: 24, as: UInt64.self) == sector else {
        return .broken("sector \(sector) begins like \(here), and sector 0 like \(stamp)")
      }
      let body = base + offset + headerByteCount
      guard memcmp(body, stamp.body(of: sector), sectorByteCount - headerByteCount) == 0 else {
        return .broken("sector \(sector) begins like \(here), and other bytes follow")
      }
    }
    return .stamp(stamp)
  }

  init(kind: UInt64, write: UInt64, block: UInt64) {
    self.kind = kind
    self.write = write
    self.block = block
  }

  private init(at bytes: UnsafeRawPointer) {
    kind = bytes.loadUnaligned(as: UInt64.self)
    write = bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    block = bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
  }

  private func body(of sector: UInt64) -> UnsafeRawPointer {
    var mixer = SeededGenerator(seed: kind ^ write &* 0x9E37_79B9_7F4A_7C15 ^ block << 20 ^ sector << 52)
    return Self.table.bytes + Int(mixer.next() & 0xFFFF)
  }

  /// Random bytes, from which bodies are cut.
  private final class Table: @unchecked Sendable {
    // Sendable because nothing changes after `init`.
    let bytes: UnsafeRawPointer

    init() {
      let count = 1 << 16 + sectorByteCount
      let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: 8)
      var generator = SeededGenerator(seed: 1)
      for offset in stride(from: 0, to: count, by: 8) {
        memory.storeBytes(of: generator.next(), toByteOffset: offset, as: UInt64.self)
      }
      bytes = UnsafeRawPointer(memory)
    }
  }

  private static let table = Table()
}

extension BlockStamp: CustomStringConvertible {
  var description: String { "write \(write) of block \(block)" }
}
