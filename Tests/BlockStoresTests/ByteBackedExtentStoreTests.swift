import BlockStores
import LacunaTestSupport
import Testing

@Suite struct ByteBackedExtentStoreTests {
  private typealias Store = ByteBackedExtentStore<MemoryByteStore>

  private static let directory = Inode(rawValue: 1)
  private static let mappings = [Inode(rawValue: 3), Inode(rawValue: 42)]

  /// A byte store with the files 1 and 40: data, holes and reserved zeroes.
  private func makeBase() throws -> MemoryByteStore {
    let base = MemoryByteStore()
    let store = try open(base)
    let first = try ExtentFile(store, inode: .one)
    let second = try ExtentFile(store, inode: Inode(rawValue: 40))
    for turn in 0..<4 as Range<UInt64> {
      try first.write(pattern(600, seed: Int(turn)), at: 1500 * turn)
      try second.write(pattern(512, seed: Int(turn)), at: 2048 * turn)
    }
    try first.zero(in: 0..<1024, keepsSpace: true)
    return base
  }

  private func open(_ base: MemoryByteStore) throws -> Store {
    try ByteBackedExtentStore(base, blockSize: .small, blockCount: 60)
  }

  @Test func `opening a byte store again brings every file back`() throws {
    let base = try makeBase()
    let store = try open(base)
    let first = try ExtentFile(store, inode: .one)
    #expect(first.byteCount == 5100)
    #expect(try first.bytes(at: 1500, count: 600) == pattern(600, seed: 1))
    #expect(first.extents(in: 0..<1500).map(\.kind) == [.unwritten, .data])
    let second = try ExtentFile(store, inode: Inode(rawValue: 40))
    #expect(try second.bytes(at: 4096, count: 512) == pattern(512, seed: 2))
    #expect(try ExtentFile(store, inode: .two).byteCount == 0)
  }

  @Test func `blocks that no mapping refers to are free after opening again`() throws {
    let base = MemoryByteStore()
    let store = try open(base)
    let file = try ExtentFile(store, inode: .one)
    try file.write(pattern(2048, seed: 1), at: 0)
    // Taken and never mapped.
    _ = try store.allocate(10, near: nil)
    #expect(store.freeBlockCount == 46)
    #expect(try open(base).freeBlockCount == 56)
  }

  // A store whose first write never reached its mapping had blocks but no directory, and did not open again.
  @Test func `a store with blocks and no file opens again`() throws {
    let base = MemoryByteStore()
    let store = try open(base)
    try store.write([1, 2, 3], to: store.allocate(1, near: nil).block)
    #expect(try open(base).freeBlockCount == 60)
  }

  @Test func `a file whose mapping shrank and one that was removed stay so`() throws {
    let base = try makeBase()
    let store = try open(base)
    try ExtentFile(store, inode: .one).truncate(to: 10)
    try ExtentFile(store, inode: Inode(rawValue: 40)).remove()
    let reopened = try open(base)
    #expect(try ExtentFile(reopened, inode: .one).byteCount == 10)
    #expect(try ExtentFile(reopened, inode: Inode(rawValue: 40)).byteCount == 0)
    #expect(reopened.freeBlockCount == 60)
  }

  @Test func `sizes that cannot be are refused`() throws {
    for count in [0, UInt64.max, 1 << 55, 1 << 54] {
      expectError(.outOfRange) {
        _ = try ByteBackedExtentStore(MemoryByteStore(), blockSize: .small, blockCount: count)
      }
    }
  }

  @Test func `blocks outside the store are neither read nor written`() throws {
    let store = try open(MemoryByteStore())
    for (block, skip, count) in [(60, 0, 1), (59, 1, 512), (59, 512, 1), (0, -1, 1), (1 << 60, 0, 1), (0, .max, 1)]
      as [(UInt64, Int, Int)]
    {
      expectError(.outOfRange) { _ = try store.bytes(from: block, skip: skip, count: count) }
      expectError(.outOfRange) { try store.write(pattern(count, seed: 1), to: block, skip: skip) }
    }
  }

  @Test func `a byte store that holds something else is refused`() throws {
    for content in [[0], [1, 2, 3], [UInt8](repeating: 0, count: 64), pattern(1000, seed: 1)] {
      let base = MemoryByteStore()
      try base.write(Self.directory, content, at: 0)
      expectError(.malformed) { _ = try open(base) }
    }
    // Blocks without a directory.
    let base = MemoryByteStore()
    try base.write(Inode(rawValue: 0), [1], at: 0)
    expectError(.malformed) { _ = try open(base) }
  }

  @Test func `mappings that pass the end of a smaller store are refused`() throws {
    let base = try makeBase()
    expectError(.malformed) { _ = try ByteBackedExtentStore(base, blockSize: .small, blockCount: 3) }
  }

  @Test func `every changed word of directory and mappings is noticed`() throws {
    let base = try makeBase()
    for inode in [Self.directory] + Self.mappings {
      let before = try base.bytes(inode, at: 0, count: 4096)
      for word in 0..<before.count / 8 {
        let offset = UInt64(8 * word)
        let old = word64(Array(before[8 * word..<8 * word + 8]))
        for new in [0, 1, old &+ 1, old &- 1, old ^ 1 << 63, old ^ 1 << 13, 1 << 62, 1 << 63, .max - 1, .max]
        where new != old {
          try base.write(inode, bytes(of: new), at: offset)
          expectError(.malformed) { _ = try open(base) }
        }
        try base.write(inode, bytes(of: old), at: offset)
      }
      _ = try open(base)
    }
  }

  @Test func `a directory or mapping cut anywhere is noticed`() throws {
    for inode in [Self.directory] + Self.mappings {
      let base = try makeBase()
      for size in (0..<(try base.byteCount(of: inode))).reversed() {
        try base.truncate(inode, to: size)
        expectError(.malformed) { _ = try open(base) }
      }
      try base.remove(inode)
      expectError(.malformed) { _ = try open(base) }
    }
  }

  @Test func `bytes behind a record mean nothing`() throws {
    for inode in [Self.directory] + Self.mappings {
      let base = try makeBase()
      try base.write(inode, pattern(777, seed: 1), at: base.byteCount(of: inode))
      _ = try open(base)
      // Nor does a length that no memory could hold.
      try base.truncate(inode, to: 1 << 42)
      _ = try open(base)
    }
  }

  @Test func `mappings of two inodes exchanged are noticed`() throws {
    let base = try makeBase()
    let contents = try Self.mappings.map { try base.bytes($0, at: 0, count: 4096) }
    for (inode, content) in zip(Self.mappings, contents.reversed()) {
      try base.truncate(inode, to: 0)
      try base.write(inode, content, at: 0)
    }
    expectError(.malformed) { _ = try open(base) }
  }

  /// Records whose checksums are right and whose words are not: what somebody could make who wishes us ill.
  @Test func `a well-made record of impossible words is refused`() throws {
    let limit = UInt64(Int64.max)
    let mappings: [[UInt64]] = [
      [limit + 1, 0], [.max, 0], [512, 1], [512, .max], [512, 1 << 61], [512, 1, 0, 0, 0], [512, 1, 0, 60, 1],
      [512, 1, 0, 59, 2], [512, 1, 0, limit, 1], [512, 1, 0, limit + 1, 1], [512, 1, 0, .max - 1, 1],
      [512, 1, 0, 0, .max],
      [512, 1, limit, 0, 1], [512, 1, .max, 0, 1], [512, 1, .max, .max, .max], [512, 1, 0, .max, limit + 1],
      // Out of order; overlapping; one block twice.
      [2048, 2, 2, 0, 1, 0, 5, 1], [2048, 2, 0, 0, 2, 1, 5, 1], [2048, 2, 0, 5, 1, 1, 5, 1],
      [2048, 2, 0, 5, 2, 2, 4, 2],
    ]
    for words in mappings {
      let base = try makeBase()
      try base.write(Self.mappings[0], try record(words, like: base, Self.mappings[0]), at: 0)
      expectError(.malformed) { _ = try open(base) }
    }
    let directories: [[UInt64]] = [
      [1], [.max], [1 << 61], [2, 40, 1], [2, 1, 1], [2, 1, 2], [1, .max], [1, .max - 1], [1, .max - 2],
    ]
    for words in directories {
      let base = try makeBase()
      try base.truncate(Self.directory, to: 16)
      try base.write(Self.directory, try record(words, like: base, Self.directory), at: 0)
      expectError(.malformed) { _ = try open(base) }
    }
  }

  /// A record with the magic of the one in `inode`, and a right checksum, made here as the type's comment and code say.
  private func record(_ words: [UInt64], like base: MemoryByteStore, _ inode: Inode) throws -> [UInt8] {
    var checksum: UInt64 = 0
    for word in [inode.rawValue] + words {
      checksum = (checksum ^ word) &* 0x9E37_79B9_7F4A_7C15
      checksum ^= checksum >> 29
    }
    return try base.bytes(inode, at: 0, count: 8) + bytes(of: checksum) + words.flatMap(bytes)
  }

  @Test func `a record made here by the book is accepted`() throws {
    let base = try makeBase()
    try base.write(Self.mappings[0], record([700, 2, 0, 55, 1, 1, .max, 1], like: base, Self.mappings[0]), at: 0)
    let file = try ExtentFile(open(base), inode: .one)
    #expect(file.extents() == [FileExtent(0..<512, .data), FileExtent(512..<700, .unwritten)])
  }

  private func bytes(of word: UInt64) -> [UInt8] { (0..<8).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }

  private func word64(_ bytes: [UInt8]) -> UInt64 { bytes.reversed().reduce(0) { $0 << 8 | UInt64($1) } }
}
