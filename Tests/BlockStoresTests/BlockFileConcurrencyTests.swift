import Atomics
import BlockStores
import Bytes
import Glibc
import LacunaTestSupport
import Testing

/// Files in many threads at once. The stores are small, so that a freed block is used again at once: a reader that met its
/// next use would see a stamp that is in pieces, or another block's.
@Suite(.serialized, .slow) struct BlockFileConcurrencyTests {
  // MARK: Whole blocks

  /// What the threads of one test share.
  private final class Shared<Store: FileStore>: Sendable {
    let store: Store
    let file: BlockFile<Store.Backing>
    /// The version that the last completed write of each group gave it.
    let completed: [ManagedAtomic<Int>]
    let writersLeft: ManagedAtomic<Int>

    init(_ store: Store, groupCount: Int, writerCount: Int, overwritesInPlace: Bool = false) throws {
      self.store = store
      file = try BlockFile(store.backing, inode: .one, overwritesInPlace: overwritesInPlace)
      completed = (0..<groupCount).map { _ in ManagedAtomic(0) }
      writersLeft = ManagedAtomic(writerCount)
    }

    var isWriting: Bool { writersLeft.load(ordering: .relaxed) > 0 }
  }

  /// Blocks that are always written together, in one write.
  private static let groupBlocks = 3
  private static let groupCount = 8
  private static let writerCount = 2

  @Test(arguments: FileStores.all)
  func `readers see each write whole and never an older one`(kind: FileStores.Kind) throws {
    try wholeWrites(kind.make(70), discarding: false)
  }

  @Test(arguments: FileStores.all)
  func `readers see each write whole or a hole while others discard`(kind: FileStores.Kind) throws {
    try wholeWrites(kind.make(70), discarding: true)
  }

  private func wholeWrites<Store: FileStore>(_ store: Store, discarding: Bool) throws {
    let shared = try Shared(store, groupCount: Self.groupCount, writerCount: Self.writerCount)
    let byteCount = Self.groupCount * Self.groupBlocks * Stamp.byteCount
    try shared.file.truncate(to: UInt64(byteCount))
    var threads: [@Sendable () throws -> Void] = (0..<Self.writerCount).map { writer in
      { try Self.writeGroups(of: writer, count: discarding ? 1_200 : 3_000, shared) }
    }
    for reader in 0..<2 { threads.append { try Self.readGroups(shared, seed: reader, mayBeHoles: discarding) } }
    if discarding {
      threads.append { try Self.discardBlocks(shared) }
    }
    try inThreads(threads)
    try store.checkSpace(of: [.one])
    try shared.file.remove()
    #expect(try store.freeBlockCount() == 70)
  }

  /// Writes groups, each its own, with versions that rise.
  private static func writeGroups<Store: FileStore>(of writer: Int, count: Int, _ shared: Shared<Store>) throws {
    defer { shared.writersLeft.wrappingDecrement(ordering: .relaxed) }
    var generator = SeededGenerator(seed: UInt64(writer))
    let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: groupBlocks * Stamp.byteCount, alignment: 16)
    defer { buffer.deallocate() }
    for version in 1...count {
      let group = generator.number(below: groupCount / writerCount) * writerCount + writer
      Stamp.fill(buffer, from: group * groupBlocks, version: version)
      try retryingWhenFull {
        try shared.file.write(UnsafeRawBufferPointer(buffer), at: UInt64(group * buffer.count))
      }
      shared.completed[group].store(version, ordering: .releasing)
    }
  }

  /// Reads ranges of groups as long as there are writers, and checks what it sees.
  private static func readGroups<Store: FileStore>(_ shared: Shared<Store>, seed: Int, mayBeHoles: Bool) throws {
    var generator = SeededGenerator(seed: UInt64(1000 + seed))
    let buffer = UnsafeMutableRawBufferPointer.allocate(
      byteCount: groupCount * groupBlocks * Stamp.byteCount, alignment: 16)
    defer { buffer.deallocate() }
    let groupByteCount = groupBlocks * Stamp.byteCount
    while shared.isWriting {
      let groups = generator.range(below: UInt64(groupCount), longest: 4)
      let least = groups.map { shared.completed[Int($0)].load(ordering: .acquiring) }
      let part = UnsafeMutableRawBufferPointer(rebasing: buffer[..<(Int(groups.length) * groupByteCount)])
      let count = try shared.file.read(into: part, at: groups.lowerBound * UInt64(groupByteCount))
      try check(count == part.count, "\(count) bytes were read, not \(part.count)")
      for (index, group) in groups.enumerated() {
        let bytes = UnsafeRawBufferPointer(rebasing: part[index * groupByteCount..<(index + 1) * groupByteCount])
        let versions = try versions(of: bytes, group: Int(group))
        for version in versions where version > 0 || !mayBeHoles {
          try check(
            version >= least[index], "group \(group) has version \(version), though \(least[index]) was complete")
        }
        let isOneWrite = versions.allSatisfy { $0 == versions[0] } || mayBeHoles
        try check(isOneWrite, "group \(group) is of several writes: \(versions)")
      }
    }
  }

  private static func versions(of bytes: UnsafeRawBufferPointer, group: Int) throws -> [Int] {
    try (0..<groupBlocks).map { index in
      let block = UnsafeRawBufferPointer(rebasing: bytes[index * Stamp.byteCount..<(index + 1) * Stamp.byteCount])
      return try Stamp.version(of: block, block: group * groupBlocks + index)
    }
  }

  private static func discardBlocks<Store: FileStore>(_ shared: Shared<Store>) throws {
    var generator = SeededGenerator(seed: 77)
    while shared.isWriting {
      let blocks = generator.range(below: UInt64(groupCount * groupBlocks), longest: 5)
      let bytes = blocks.lowerBound * 512..<blocks.upperBound * 512
      if generator.oneIn(2) {
        try shared.file.discard(in: bytes)
      } else {
        try retryingWhenFull { try shared.file.zero(in: bytes, keepsSpace: generator.oneIn(2)) }
      }
    }
  }

  // MARK: Parts of blocks

  @Test(arguments: FileStores.all, [false, true])
  func `writers of parts of the same blocks never lose each other's bytes`(
    kind: FileStores.Kind, overwritesInPlace: Bool
  ) throws {
    try partialWrites(kind.make(60), overwritesInPlace)
  }

  /// The file is cut into lanes of 75 bytes, so that each block has several and some cross its borders. Each thread has
  /// every fourth lane to itself.
  private func partialWrites<Store: FileStore>(_ store: Store, _ overwritesInPlace: Bool) throws {
    let (laneByteCount, laneCount, threadCount) = (75, 40, 4)
    let file = try BlockFile(store.backing, inode: .one, overwritesInPlace: overwritesInPlace)
    try file.truncate(to: UInt64(laneByteCount * laneCount))
    let results = Locked<[Int: ReferenceDisk]>([:])
    try inThreads(threadCount) { thread in
      var generator = SeededGenerator(seed: UInt64(thread))
      var own = ReferenceDisk(byteCount: laneByteCount * laneCount)
      for _ in 0..<1_500 {
        let lane = generator.number(below: laneCount / threadCount) * threadCount + thread
        let laneStart = lane * laneByteCount
        let part = generator.range(below: UInt64(laneByteCount), longest: UInt64(laneByteCount))
        let range = laneStart + Int(part.lowerBound)..<laneStart + Int(part.upperBound)
        let operation: FileOperation =
          generator.oneIn(4) ? .zero(range, keepsSpace: generator.oneIn(2)) : .write(range)
        try retryingWhenFull { try operation.apply(to: file) }
        switch operation {
        case .zero: own.zero(range)
        default: FileOperation.bytes(for: range).withUnsafeBytes { own.write($0, at: range.lowerBound) }
        }
        // Nobody else writes to this lane.
        let found = try file.bytes(at: UInt64(laneStart), count: laneByteCount)
        try found.withUnsafeBytes { try own.check($0, at: laneStart) }
      }
      results.withLock { $0[thread] = own }
    }
    let found = try file.bytes(at: 0, count: laneByteCount * laneCount)
    for lane in 0..<laneCount {
      let own = try #require(results.withLock { $0[lane % threadCount] })
      let range = lane * laneByteCount..<(lane + 1) * laneByteCount
      try found.withUnsafeBytes { try own.check(UnsafeRawBufferPointer(rebasing: $0[range]), at: range.lowerBound) }
    }
    try store.checkSpace(of: [.one])
  }

  // MARK: Sizes

  @Test(arguments: FileStores.all, [false, true])
  func `cutting and lengthening never harm what lies before`(kind: FileStores.Kind, overwritesInPlace: Bool) throws {
    try cutBehind(kind.make(60), overwritesInPlace)
  }

  /// Writers change bytes below `border`, others cut the file at and write behind it: in the middle of a block.
  private func cutBehind<Store: FileStore>(_ store: Store, _ overwritesInPlace: Bool) throws {
    let border = 4 * 512 + 200
    let file = try BlockFile(store.backing, inode: .one, overwritesInPlace: overwritesInPlace)
    try file.truncate(to: UInt64(border))
    let writersLeft = ManagedAtomic(2)
    try inThreads(4) { thread in
      var generator = SeededGenerator(seed: UInt64(thread))
      guard thread < 2 else {
        while writersLeft.load(ordering: .relaxed) > 0 {
          let place = border + generator.number(below: 1500)
          try retryingWhenFull {
            if thread == 2 {
              try file.truncate(to: UInt64(place))
            } else {
              try file.write(pattern(1 + generator.number(below: 700), seed: 1), at: UInt64(place))
            }
          }
        }
        return
      }
      defer { writersLeft.wrappingDecrement(ordering: .relaxed) }
      let half = thread * border / 2..<(thread + 1) * border / 2
      var own = ReferenceDisk(byteCount: border)
      for _ in 0..<1_500 {
        let part = generator.range(below: UInt64(half.count), longest: 700)
        let range = half.lowerBound + Int(part.lowerBound)..<half.lowerBound + Int(part.upperBound)
        let bytes = FileOperation.bytes(for: range)
        try retryingWhenFull { try file.write(bytes, at: UInt64(range.lowerBound)) }
        bytes.withUnsafeBytes { own.write($0, at: range.lowerBound) }
        let found = try file.bytes(at: UInt64(half.lowerBound), count: half.count)
        try check(found.count == half.count, "the file was cut to less than \(half.upperBound) bytes")
        try found.withUnsafeBytes { try own.check($0, at: half.lowerBound) }
      }
    }
    try store.checkSpace(of: [.one])
    // What is behind a cut is zeroes, however it came to be cut.
    try file.truncate(to: UInt64(border))
    try file.truncate(to: 5000)
    #expect(try file.bytes(at: UInt64(border), count: 5000) == [UInt8](repeating: 0, count: 5000 - border))
  }

  /// Lets two threads do one operation each at the same time, often, on a file of 700 bytes each time.
  private func race<Store: FileStore>(
    _ store: Store, rounds: Int, _ first: @escaping @Sendable (BlockFile<Store.Backing>) throws -> Void,
    _ second: @escaping @Sendable (BlockFile<Store.Backing>) throws -> Void,
    afterwards: @escaping @Sendable (BlockFile<Store.Backing>) throws -> Void
  ) throws {
    let file = try BlockFile(store.backing, inode: .one)
    let rendezvous = Rendezvous(of: 2)
    // An error must not leave the other thread waiting.
    let failure = Locked<(any Error)?>(nil)
    let noting: @Sendable (() throws -> Void) -> Void = { body in
      do { try body() } catch { failure.withLock { $0 = $0 ?? error } }
    }
    try inThreads(2) { thread in
      for _ in 0..<rounds {
        if thread == 0 {
          noting {
            try file.truncate(to: 0)
            try file.write(pattern(700, seed: 1), at: 0)
          }
        }
        rendezvous.meet()
        noting { try (thread == 0 ? first : second)(file) }
        rendezvous.meet()
        if thread == 0 { noting { try afterwards(file) } }
      }
    }
    if let failure = failure.withLock({ $0 }) { throw failure }
    try store.checkSpace(of: [.one])
  }

  // Found in review: the size was read before the lock; a block that the file only half filled then was dropped whole.
  @Test(arguments: FileStores.all, [true, false])
  func `a discard that ends with the file spares what a write adds to its last block`(
    kind: FileStores.Kind, zeroing: Bool
  ) throws {
    func run(_ store: some FileStore) throws {
      let added = pattern(200, seed: 2)
      try race(
        store, rounds: 1_500,
        { file in try zeroing ? file.zero(in: 512..<700, keepsSpace: false) : file.discard(in: 512..<700) },
        { file in try file.write(added, at: 700) },
        afterwards: { file in
          try check(file.bytes(at: 700, count: 500) == added, "the bytes behind the discarded range are gone")
          try check(file.bytes(at: 0, count: 512) == Array(pattern(700, seed: 1)[..<512]), "bytes before it are gone")
        })
    }
    try run(kind.make(30))
  }

  // Found in review: zeroes for the part of a block were written although the file had been cut before it.
  @Test(arguments: FileStores.all)
  func `zeroing does not lengthen a file that is cut meanwhile`(kind: FileStores.Kind) throws {
    func run(_ store: some FileStore) throws {
      try race(
        store, rounds: 1_500, { file in try file.zero(in: 100..<690, keepsSpace: true) },
        { file in try file.truncate(to: 200) },
        afterwards: { file in
          try check(file.byteCount == 200, "the file has \(file.byteCount) bytes")
          try check(
            file.bytes(at: 0, count: 999) == pattern(700, seed: 1)[..<100] + [UInt8](repeating: 0, count: 100),
            "the rest is wrong")
        })
    }
    try run(kind.make(30))
  }

  // Found in review: a write between the two steps of a removal was mapped by blocks that the store knew nothing of.
  @Test(arguments: FileStores.all)
  func `a file written while it is removed is there or not, in the store too`(kind: FileStores.Kind) throws {
    func run<Store: FileStore>(_ store: Store) throws {
      let bytes = pattern(700, seed: 2)
      try race(
        store, rounds: 1_500, { file in try file.remove() }, { file in try file.write(bytes, at: 0) },
        afterwards: { file in
          try check([0, 700].contains(file.byteCount), "the file has \(file.byteCount) bytes")
          let stored = try store.backing.map(of: .one).byteCount
          try check(stored == file.byteCount, "in the store it has \(stored) bytes")
        })
    }
    try run(kind.make(30))
  }

  // MARK: Clones

  @Test(arguments: [false, true])
  func `clones taken while others write are whole and stay as they were`(overwritesInPlace: Bool) throws {
    for kind in [StoreKind<MemoryExtentStore>.memory, .frugalMemory] {
      let memory = try kind.make(150)
      let store = COWFileStore(memory, capacity: 150) { memory.freeBlockCount }
      let shared = try Shared(
        store, groupCount: Self.groupCount, writerCount: Self.writerCount, overwritesInPlace: overwritesInPlace)
      let byteCount = Self.groupCount * Self.groupBlocks * Stamp.byteCount
      try shared.file.truncate(to: UInt64(byteCount))
      var threads: [@Sendable () throws -> Void] = (0..<Self.writerCount).map { writer in
        { try Self.writeGroups(of: writer, count: 3_000, shared) }
      }
      for cloner in 0..<2 { threads.append { try Self.takeClones(of: shared, cloner) } }
      try inThreads(threads)
      try store.checkSpace(of: [.one])
      try shared.file.remove()
      #expect(memory.freeBlockCount == 150)
    }
  }

  private static func takeClones<Store: COWStore>(of shared: Shared<COWFileStore<Store>>, _ cloner: Int) throws {
    var generator = SeededGenerator(seed: UInt64(500 + cloner))
    var number = UInt64(10 + cloner)
    while shared.isWriting {
      let least = shared.completed.map { $0.load(ordering: .acquiring) }
      let clone = try shared.file.clone(to: Inode(rawValue: number))
      number += 2
      let before = try clone.bytes(at: 0, count: Int(clone.byteCount))
      try before.withUnsafeBytes { bytes in
        for group in 0..<groupCount {
          let size = groupBlocks * Stamp.byteCount
          let versions = try versions(
            of: UnsafeRawBufferPointer(rebasing: bytes[group * size..<(group + 1) * size]), group: group)
          try check(versions.allSatisfy { $0 == versions[0] }, "a clone has a group of several writes: \(versions)")
          try check(
            versions[0] >= least[group], "a clone has version \(versions[0]), though \(least[group]) was complete")
        }
      }
      // A write to the clone stays in it, and breaks no sharing but its own.
      let block = generator.number(below: groupCount * groupBlocks)
      try retryingWhenFull { try clone.write(pattern(512, seed: block), at: UInt64(512 * block)) }
      let after = try clone.bytes(at: 0, count: Int(clone.byteCount))
      try check(
        after == before[..<(512 * block)] + pattern(512, seed: block) + before[(512 * block + 512)...], "it changed")
      try clone.remove()
    }
  }

  // writer in place                        who clones
  // finds a block that is its own
  //                                        makes the clone, which shares the block; must wait
  // writes into the block
  @Test func `a clone waits for who overwrites a block in place`() throws {
    let memory = try StoreKind<MemoryExtentStore>.memory.make(40)
    let (isArmed, arrived) = (ManagedAtomic(false), Gate())
    let store = AwkwardExtentStore(
      memory,
      beforeWriting: { _ in
        guard isArmed.exchange(false, ordering: .relaxed) else { return }
        arrived.open()
        // Long enough for a clone that does not wait.
        usleep(50_000)
      })
    let file = try ExtentFile(store, inode: .one, overwritesInPlace: true)
    try file.write(pattern(1024, seed: 1), at: 0)
    let before = try memory.extents(of: .one).runs.runs
    isArmed.store(true, ordering: .relaxed)
    try inThreads([
      { try file.write(pattern(100, seed: 2), at: 300) },
      {
        arrived.pass()
        let clone = try file.clone(to: .two)
        try check(clone.bytes(at: 300, count: 100) == pattern(100, seed: 2), "the clone came before the write ended")
      },
    ])
    #expect(try memory.extents(of: .one).runs.runs == before)
  }

  // MARK: Slow readers

  @Test func `a reader that holds an old view for very long sees it to the end, and everything is freed then`() throws {
    let writeCount = 120_000
    let capacity = UInt64(writeCount + 20)
    let (isArmed, arrived, mayGoOn) = (ManagedAtomic(false), Gate(), Gate())
    let memory = try StoreKind<MemoryExtentStore>.memory.make(capacity)
    let store = AwkwardExtentStore(
      memory,
      beforeReading: { _ in
        guard isArmed.exchange(false, ordering: .relaxed) else { return }
        arrived.open()
        mayGoOn.pass()
      })
    let file = try ExtentFile(store, inode: .one)
    let old = pattern(1024, seed: 1)
    try file.write(old, at: 0)
    isArmed.store(true, ordering: .relaxed)
    // The reader is the last to hold more than a hundred thousand views, and releases them all on a small stack.
    try inThreads(
      stackByteCount: 128 << 10,
      [
        {
          let found = try file.bytes(at: 0, count: 1024)
          try check(found == old, "the reader met the next use of its blocks")
        },
        {
          arrived.pass()
          defer { mayGoOn.open() }
          let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 512, alignment: 16)
          defer { buffer.deallocate() }
          for version in 1...writeCount {
            Stamp.fill(buffer, from: version % 2, version: version)
            try file.write(UnsafeRawBufferPointer(buffer), at: UInt64(512 * (version % 2)))
          }
          try check(memory.freeBlockCount < 20, "blocks were freed that a reader could reach")
        },
      ])
    #expect(memory.freeBlockCount == capacity - 2)
    let found = try file.bytes(at: 0, count: 1024)
    for block in 0..<2 {
      let version = try found.withUnsafeBytes {
        try Stamp.version(of: UnsafeRawBufferPointer(rebasing: $0[512 * block..<512 * (block + 1)]), block: block)
      }
      #expect(version >= writeCount - 1)
    }
  }

  @Test(arguments: [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]])
  func `views are released only after all older ones`(order: [Int]) throws {
    let memory = try StoreKind<MemoryExtentStore>.memory.make(40)
    let gates = (0..<3).map { _ in (arrived: Gate(), mayGoOn: Gate()) }
    let next = ManagedAtomic(0)
    let store = AwkwardExtentStore(
      memory,
      beforeReading: { _ in
        let reader = next.loadThenWrappingIncrement(ordering: .relaxed)
        guard reader < 3 else { return }
        gates[reader].arrived.open()
        gates[reader].mayGoOn.pass()
      })
    let file = try ExtentFile(store, inode: .one)
    let released = (0..<3).map { _ in Gate() }
    let readers: [@Sendable () throws -> Void] = (0..<3).map { reader in
      {
        // An error must not leave the others waiting.
        defer {
          released[reader].open()
          gates[reader].arrived.open()
        }
        if reader > 0 { gates[reader - 1].arrived.pass() }
        // Reader 0 makes the first version; each other writes one more while those before it are inside.
        try file.write(pattern(512, seed: reader), at: 0)
        let found = try file.bytes(at: 0, count: 512)
        try check(found == pattern(512, seed: reader), "reader \(reader) met another version")
      }
    }
    try inThreads(
      readers + [
        {
          defer { for gate in gates { gate.mayGoOn.open() } }
          gates[2].arrived.pass()
          var gone: Set<Int> = []
          for reader in order {
            try check(memory.freeBlockCount == 37 + UInt64((0..<3).prefix { gone.contains($0) }.count), "after \(gone)")
            gates[reader].mayGoOn.open()
            released[reader].pass()
            gone.insert(reader)
          }
        }
      ])
    #expect(memory.freeBlockCount == 39)
  }
}
