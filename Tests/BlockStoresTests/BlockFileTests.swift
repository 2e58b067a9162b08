import BlockStores
import LacunaTestSupport
import Testing

/// What files promise beyond what the suite for byte stores asks, which runs on them too.
@Suite struct BlockFileTests {
  private static let largest = UInt64(Int64.max)

  @Test(arguments: FileStores.all)
  func `the last byte that a file can have is written and read back`(kind: FileStores.Kind) throws {
    try lastByte(kind.make(20))
  }

  private func lastByte(_ store: some FileStore) throws {
    let file = try BlockFile(store.backing, inode: .one)
    try file.write([9], at: Self.largest - 1)
    #expect(file.byteCount == Self.largest)
    #expect(try file.bytes(at: Self.largest - 3, count: 100) == [0, 0, 9])
    let last = Self.largest / 512 * 512
    #expect(file.extents() == [FileExtent(0..<last, .hole), FileExtent(last..<Self.largest, .data)])
    #expect(file.extents(in: Self.largest - 1..<UInt64.max) == [FileExtent(Self.largest - 1..<Self.largest, .data)])
    try file.zero(in: 5..<UInt64.max, keepsSpace: false)
    #expect(file.extents() == [FileExtent(0..<Self.largest, .hole)])
    try file.write([1], at: 1 << 62)
    try file.truncate(to: 1 << 62)
    #expect(file.extents() == [FileExtent(0..<1 << 62, .hole)])
    try store.checkSpace(of: [.one])
    #expect(try store.freeBlockCount() == 20)
  }

  @Test(arguments: FileStores.all)
  func `zeroes that keep their space have it, holes have none`(kind: FileStores.Kind) throws {
    try zeroesAndHoles(kind.make(20))
  }

  private func zeroesAndHoles<Store: FileStore>(_ store: Store) throws {
    let file = try BlockFile(store.backing, inode: .one)
    try file.write(pattern(4096, seed: 1), at: 0)
    try file.zero(in: 0..<2048, keepsSpace: false)
    #expect(try store.freeBlockCount() == 16)
    try file.zero(in: 0..<4096, keepsSpace: true)
    let reserves = Store.Backing.Map.holdsUnwritten
    #expect(try store.freeBlockCount() == (reserves ? 20 : 12))
    #expect(file.extents() == [FileExtent(0..<4096, reserves ? .unwritten : .data)])
    try file.discard(in: 0..<4096)
    #expect(file.extents() == [FileExtent(0..<4096, .hole)])
    #expect(try file.bytes(at: 0, count: 4096) == [UInt8](repeating: 0, count: 4096))
  }

  @Test(arguments: FileStores.all)
  func `a discard keeps the parts of blocks at its ends`(kind: FileStores.Kind) throws {
    let store = try kind.make(20)
    func discardInside(_ store: some FileStore) throws {
      let file = try BlockFile(store.backing, inode: .one)
      let bytes = pattern(2500, seed: 1)
      try file.write(bytes, at: 0)
      try file.discard(in: 511..<1025)
      #expect(
        try file.bytes(at: 0, count: 3000) == bytes[..<512] + [UInt8](repeating: 0, count: 512) + bytes[1024...])
      // The last block is whole where the range ends with the file, and not where it ends before.
      try file.discard(in: 2048..<2499)
      #expect(try file.bytes(at: 2048, count: 3000) == Array(bytes[2048...]))
      try file.discard(in: 2048..<UInt64.max)
      #expect(try file.bytes(at: 2048, count: 3000) == [UInt8](repeating: 0, count: 452))
      #expect(file.byteCount == 2500)
    }
    try discardInside(store)
  }

  @Test(arguments: FileStores.all)
  func `a write that finds no room changes nothing and loses nothing`(kind: FileStores.Kind) throws {
    func fill(_ store: some FileStore) throws {
      let file = try BlockFile(store.backing, inode: .one)
      let bytes = pattern(6000, seed: 1)
      try file.write(bytes, at: 0)
      expectError(.outOfSpace) { try file.write(pattern(9 * 512, seed: 2), at: 100) }
      #expect(try file.bytes(at: 0, count: 9000) == bytes)
      #expect(try store.freeBlockCount() == 8)
      try file.write(pattern(8 * 512, seed: 3), at: 6144)
      #expect(try store.freeBlockCount() == 0)
      expectError(.outOfSpace) { try file.write([1], at: 0) }
      expectError(.outOfSpace) { try file.truncate(to: 1) }
      #expect(file.byteCount == 10_240)
      // What gives space back needs none.
      try file.discard(in: 0..<512)
      try file.truncate(to: 512)
      #expect(try store.freeBlockCount() == 20)
    }
    try fill(kind.make(20))
  }

  @Test func `a clone and its source are two files`() throws {
    let store = try StoreKind<MemoryExtentStore>.memory.make(40)
    let file = try ExtentFile(store, inode: .one)
    let bytes = pattern(3000, seed: 1)
    try file.write(bytes, at: 0)
    do {
      let clone = try file.clone(to: .two)
      #expect(store.freeBlockCount == 34)
      try clone.write(pattern(100, seed: 2), at: 600)
      try file.truncate(to: 1000)
      #expect(try file.bytes(at: 0, count: 4000) == Array(bytes[..<1000]))
      #expect(try clone.bytes(at: 0, count: 4000) == bytes[..<600] + pattern(100, seed: 2) + bytes[700...])
      expectError(.wrongInode) { _ = try file.clone(to: .two) }
      try file.remove()
      #expect(try clone.bytes(at: 0, count: 600) == Array(bytes[..<600]))
      try clone.remove()
      // It is empty, and can be written to: no number for another one yet.
      expectError(.inUse) { _ = try file.clone(to: .two) }
      withExtendedLifetime(clone) {}
    }
    #expect(store.freeBlockCount == 40)
    // Both numbers are unknown again.
    _ = try file.clone(to: .two)
  }

  @Test(arguments: FileStores.all)
  func `a second file on an inode is refused while there is a first one, and harms nothing`(
    kind: FileStores.Kind
  ) throws {
    func open<Store: FileStore>(_ store: Store) throws {
      let bytes = pattern(3000, seed: 1)
      do {
        let file = try BlockFile(store.backing, inode: .one)
        try file.write(bytes, at: 0)
        expectError(.inUse) { _ = try BlockFile(store.backing, inode: .one) }
        expectError(.inUse) { _ = try BlockFile(store.backing, inode: .one, overwritesInPlace: true) }
        try BlockFile(store.backing, inode: .two).write([1], at: 0)
        try file.write(bytes, at: 100)
        #expect(try file.bytes(at: 0, count: 4000) == Array(bytes[..<100]) + bytes)
      }
      let file = try BlockFile(store.backing, inode: .one)
      #expect(try file.bytes(at: 100, count: 4000) == bytes)
      try file.remove()
      try store.checkSpace(of: [.one, .two])
    }
    try open(kind.make(30))
  }

  // The file's view would keep blocks that are free by then, and free them once more.
  @Test(arguments: [false, true])
  func `sharing is not broken under an open file`(overwritesInPlace: Bool) throws {
    let store = try StoreKind<MemoryExtentStore>.memory.make(40)
    let bytes = pattern(5120, seed: 1)
    do {
      let file = try ExtentFile(store, inode: .one, overwritesInPlace: overwritesInPlace)
      try file.write(bytes, at: 0)
      let clone = try file.clone(to: .two)
      let before = try store.extents(of: .one).runs.runs
      for inode in [Inode.one, .two] { expectError(.inUse) { _ = try store.breakSharing(of: inode, in: 0..<10) } }
      #expect(try store.extents(of: .one).runs.runs == before)
      try clone.write(pattern(100, seed: 2), at: 600)
      #expect(try file.bytes(at: 0, count: 6000) == bytes)
    }
    _ = try store.breakSharing(of: .two, in: 0..<10)
    #expect(try ExtentFile(store, inode: .one).bytes(at: 0, count: 6000) == bytes)
    try COWFileStore(store, capacity: 40) { store.freeBlockCount }.checkSpace(of: [.one, .two])
  }

  @Test func `a file that overwrites in place takes blocks only for what is not its own`() throws {
    let memory = try StoreKind<MemoryExtentStore>.memory.make(40)
    let file = try ExtentFile(memory, inode: .one, overwritesInPlace: true)
    try file.write(pattern(5120, seed: 1), at: 0)
    let before = try memory.extents(of: .one).runs.runs
    // Its own: whole blocks and parts of them.
    for range in [0..<5120, 100..<5000, 512..<1024, 7..<8] {
      try FileOperation.write(range).apply(to: file)
      #expect(try memory.extents(of: .one).runs.runs == before)
    }
    // A clone's too, until one of the two has its own copy.
    let clone = try file.clone(to: .two)
    let shared = try clone.bytes(at: 0, count: 6000)
    try file.write([1], at: 600)
    #expect(memory.freeBlockCount == 29)
    try file.write([2], at: 601)
    #expect(memory.freeBlockCount == 29)
    #expect(try clone.bytes(at: 0, count: 6000) == shared)
    try clone.write(pattern(512, seed: 3), at: 512)
    #expect(memory.freeBlockCount == 29)
    #expect(try file.bytes(at: 600, count: 2) == [1, 2])
    // Where a hole begins, in the midst of a write, and behind the end.
    try file.discard(in: 1024..<1536)
    try file.write(pattern(1024, seed: 4), at: 600)
    try file.write(pattern(100, seed: 5), at: 5100)
    #expect(try file.bytes(at: 600, count: 1024) == pattern(1024, seed: 4))
    #expect(try file.bytes(at: 5100, count: 999) == pattern(100, seed: 5))
    #expect(try clone.bytes(at: 1024, count: 6000) == Array(shared[1024...]))
    try COWFileStore(memory, capacity: 40) { memory.freeBlockCount }.checkSpace(of: [.one, .two])
  }

  @Test func `the walk over extents stops where it is told to`() throws {
    let file = try ExtentFile(StoreKind<MemoryExtentStore>.memory.make(40), inode: .one)
    for block in stride(from: UInt64(0), to: 40, by: 4) { try file.write([1], at: 512 * block) }
    for limit in 1...19 {
      var count = 0
      file.forEachExtent(in: 0..<UInt64.max) { _, _ in
        count += 1
        return count < limit
      }
      #expect(count == limit)
    }
  }

  @Test func `a run follows the block before it where there is room`() throws {
    let store = try StoreKind<MemoryExtentStore>.memory.make(40)
    let file = try ExtentFile(store, inode: .one)
    for block in 0..<10 as Range<UInt64> { try file.write(pattern(512, seed: 1), at: 512 * block) }
    #expect(try store.extents(of: .one).runs.runs.count == 1)
  }

  @Test func `memory stores that cannot be are refused`() {
    for count in [0, UInt64.max, 1 << 55, 1 << 52] {
      #expect(throws: StoreError.self) { try MemoryExtentStore(blockSize: .small, blockCount: count) }
      #expect(throws: StoreError.self) { try MemoryBlockChainStore(blockSize: .small, blockCount: count) }
    }
  }

  @Test func `a store of only the block that is never used is full`() throws {
    let store = try MemoryExtentStore(blockSize: .small, blockCount: 1)
    expectError(.outOfSpace) { _ = try store.allocate(1, near: nil) }
  }

  @Test func `a file of bytes grows to most of the addresses there are`() throws {
    let store = MemoryByteStore()
    try store.write(.one, [1], at: 0)
    try store.write(.one, [2], at: 1 << 46)
    #expect(try store.bytes(.one, at: (1 << 46) - 1, count: 5) == [0, 2])
    #expect(try store.bytes(.one, at: 0, count: 2) == [1, 0])
    expectError(.outOfSpace) { try store.write(.one, [2], at: 1 << 60) }
    #expect(try store.byteCount(of: .one) == (1 << 46) + 1)
  }
}
