package import BlockStores
import Testing

/// What every `ByteStore` promises.
package enum ByteStoreConformance {
  package typealias Kind = StoreKind<any ByteStore>

  private static let largest = UInt64(Int64.max)

  package static let promises: [Promise<Kind>] = [
    Promise("an unknown inode is an empty file") { kind in
      let store = try kind.make(100)
      #expect(try store.byteCount(of: .one) == 0)
      #expect(try store.bytes(.one, at: 0, count: 10) == [])
      try store.zero(.one, in: 0..<100)
      try store.remove(.one)
      #expect(try store.byteCount(of: .one) == 0)
    },

    Promise("what was written is read back, each file's own") { kind in
      let store = try kind.make(100)
      let (first, second) = (pattern(3000, seed: 1), pattern(1500, seed: 2))
      try store.write(.one, first, at: 0)
      try store.write(.two, second, at: 0)
      #expect(try store.bytes(.one, at: 0, count: 3000) == first)
      #expect(try store.bytes(.two, at: 0, count: 1500) == second)
      #expect(try store.bytes(.one, at: 511, count: 514) == Array(first[511..<1025]))
    },

    Promise("a read ends where the file ends and leaves the rest of the buffer alone") { kind in
      let store = try kind.make(100)
      let bytes = pattern(700, seed: 1)
      try store.write(.one, bytes, at: 0)
      #expect(try store.bytes(.one, at: 690, count: 100) == Array(bytes[690...]))
      for offset in [700, 701, 1 << 20, largest, .max] { #expect(try store.bytes(.one, at: offset, count: 10) == []) }
      #expect(try store.bytes(.one, at: 10, count: 0) == [])
    },

    Promise("a write behind the end leaves zeroes before it") { kind in
      let store = try kind.make(100)
      try store.write(.one, [1, 2, 3], at: 0)
      try store.write(.one, [4], at: 5000)
      #expect(try store.byteCount(of: .one) == 5001)
      #expect(try store.bytes(.one, at: 0, count: 6000) == [1, 2, 3] + [UInt8](repeating: 0, count: 4997) + [4])
    },

    Promise("a write far out takes no space for what lies before") { kind in
      let store = try kind.make(100)
      try store.write(.one, [7, 8], at: (1 << 40) - 1)
      #expect(try store.byteCount(of: .one) == (1 << 40) + 1)
      #expect(try store.bytes(.one, at: (1 << 40) - 2, count: 9) == [0, 7, 8])
      try store.zero(.one, in: 0..<largest)
      #expect(try store.bytes(.one, at: (1 << 40) - 2, count: 9) == [0, 0, 0])
    },

    Promise("a write of no bytes changes nothing, wherever it is") { kind in
      let store = try kind.make(100)
      for offset in [0, 5, 1 << 40, largest] { try store.write(.one, [], at: offset) }
      #expect(try store.byteCount(of: .one) == 0)
      try store.write(.one, [1, 2], at: 0)
      for offset in [0, 1, 5, 1 << 40, largest] { try store.write(.one, [], at: offset) }
      #expect(try store.bytes(.one, at: 0, count: 5) == [1, 2])
    },

    Promise("a file cut and lengthened again has zeroes where it was cut") { kind in
      for (low, high) in [(0, 3000), (1, 700), (700, 701), (512, 600), (1023, 1025), (1024, 2000)] {
        let store = try kind.make(100)
        let bytes = pattern(2000, seed: low)
        try store.write(.one, bytes, at: 0)
        try store.truncate(.one, to: UInt64(low))
        #expect(try store.byteCount(of: .one) == UInt64(low))
        try store.truncate(.one, to: UInt64(high))
        #expect(try store.byteCount(of: .one) == UInt64(high))
        #expect(try store.bytes(.one, at: 0, count: 4000) == bytes[..<low] + [UInt8](repeating: 0, count: high - low))
      }
    },

    // Found here: lengthening a file, or setting the size it has, freed its last block.
    Promise("a file that is lengthened or keeps its size keeps its bytes") { kind in
      let store = try kind.make(100)
      let bytes = pattern(700, seed: 1)
      try store.write(.one, bytes, at: 0)
      for size in [700, 701, 1024, 1025, 5000, 5000] as [UInt64] {
        try store.truncate(.one, to: size)
        // Takes the blocks that were freed by mistake, if any.
        try store.write(.two, pattern(700, seed: 2), at: size)
        #expect(try store.bytes(.one, at: 0, count: 700) == bytes)
        #expect(try store.byteCount(of: .one) == size)
      }
    },

    Promise("zeroing takes exactly its range and does not lengthen the file") { kind in
      let borders: [UInt64] = [0, 1, 511, 512, 513, 1024, 1536, 1600, 1601, 9000]
      for lower in borders {
        for upper in borders where upper >= lower {
          let store = try kind.make(100)
          var disk = ReferenceDisk()
          let bytes = pattern(1600, seed: 1)
          try store.write(.one, bytes, at: 0)
          bytes.withUnsafeBytes { disk.write($0, at: 0) }
          try store.zero(.one, in: lower..<upper)
          disk.zero(Int(lower)..<Int(upper))
          #expect(try store.bytes(.one, at: 0, count: 9000) == disk.bytes)
        }
      }
    },

    Promise("a removed file is empty and can be written anew") { kind in
      let store = try kind.make(100)
      try store.write(.one, pattern(3000, seed: 1), at: 0)
      try store.write(.two, [9], at: 0)
      try store.remove(.one)
      try store.remove(.one)
      #expect(try store.byteCount(of: .one) == 0)
      #expect(try store.bytes(.one, at: 0, count: 10) == [])
      try store.write(.one, [5], at: 1000)
      #expect(try store.bytes(.one, at: 0, count: 2000) == [UInt8](repeating: 0, count: 1000) + [5])
      #expect(try store.bytes(.two, at: 0, count: 10) == [9])
    },

    Promise("what would end above 2^63 - 1 is refused and changes nothing") { kind in
      let store = try kind.make(100)
      try store.write(.one, [1, 2], at: 0)
      for offset in [largest, largest + 1, UInt64.max - 1, UInt64.max] {
        expectError(.outOfRange) { try store.write(.one, [3], at: offset) }
      }
      expectError(.outOfRange) { try store.write(.one, [3, 4], at: largest - 1) }
      expectError(.outOfRange) { try store.truncate(.one, to: largest + 1) }
      expectError(.outOfRange) { try store.truncate(.one, to: .max) }
      #expect(try store.bytes(.one, at: 0, count: 10) == [1, 2])
    },

    Promise("random requests agree with a flat array") { kind in
      try withSeededGenerator { generator in try randomRequests(kind.make(100), &generator) }
    },
  ]

  private static func randomRequests(_ store: any ByteStore, _ generator: inout SeededGenerator) throws {
    let inodes: [Inode] = [.one, .two]
    var disks = [ReferenceDisk(), ReferenceDisk()]
    for request in 0..<3_000 {
      let file = generator.number(below: 2)
      let range = generator.range(below: 12_000, longest: generator.oneIn(10) ? 12_000 : 1200)
      switch generator.number(below: 20) {
      case 0: try truncate(to: Int(range.lowerBound))
      case 1..<4:
        try store.zero(inodes[file], in: range)
        disks[file].zero(Int(range.lowerBound)..<Int(range.upperBound))
      case 4 where generator.oneIn(5):
        try store.remove(inodes[file])
        disks[file] = ReferenceDisk()
      default:
        let bytes = generator.nonZeroBytes(Int(range.length))
        try store.write(inodes[file], bytes, at: range.lowerBound)
        bytes.withUnsafeBytes { disks[file].write($0, at: Int(range.lowerBound)) }
      }
      guard request % 10 == 0 else { continue }
      for (inode, disk) in zip(inodes, disks) {
        try check(store.byteCount(of: inode) == UInt64(disk.byteCount), "a file is not \(disk.byteCount) bytes long")
        let found = try store.bytes(inode, at: 0, count: disk.byteCount + 10)
        try check(found.count == disk.byteCount, "\(found.count) bytes were read, not \(disk.byteCount)")
        try found.withUnsafeBytes { try disk.check($0, at: 0) }
      }

      func truncate(to byteCount: Int) throws {
        try store.truncate(inodes[file], to: UInt64(byteCount))
        disks[file].resize(to: byteCount)
      }
    }
  }
}
