package import Devices
import Glibc
package import Testing

/// A way to have new devices for tests, with its name.
package struct DeviceKind: Sendable, CustomTestStringConvertible {
  private let name: String
  /// Whether its length can become greater.
  package let grows: Bool
  /// Whether it tells where it has storage, to the page.
  package let tellsStorage: Bool
  private let make: @Sendable (_ byteCount: UInt64, _ body: (any BlockDevice) throws -> Void) throws -> Void

  /// - Parameter make: runs `body` with a new device of `byteCount` zeroes, and puts everything away afterwards.
  package init(
    _ name: String, grows: Bool = true, tellsStorage: Bool = true,
    _ make: @escaping @Sendable (_ byteCount: UInt64, _ body: (any BlockDevice) throws -> Void) throws -> Void
  ) {
    (self.name, self.grows, self.tellsStorage) = (name, grows, tellsStorage)
    self.make = make
  }

  package var testDescription: String { name }

  /// Runs `body` with a new device of `byteCount` zeroes.
  package func withDevice(byteCount: UInt64, _ body: (any BlockDevice) throws -> Void) throws {
    try make(byteCount, body)
  }
}

/// What every `BlockDevice` promises: a test runs it on all devices that there are, those of the tests too.
package enum BlockDeviceConformance {
  package typealias Kind = DeviceKind

  /// Numbers around the sizes that sectors, blocks and pages have.
  private static let edges: [UInt64] = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12_289]

  /// All of it.
  package static let promises = ranges + batches + journals + storage + growth + threads

  private static let ranges: [Promise<Kind>] = [
    Promise("a new device reads as zeroes") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        let bytes = try device.bytes(at: 0, count: 65_536)
        #expect(bytes == zeroes(65_536))
        #expect(device.byteCount == 65_536)
      }
    },

    Promise("bytes written at any alignment are read back and their neighbours stay") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        var model = zeroes(65_536)
        for offset in edges {
          for count in edges.map({ Int($0) }) {
            let bytes = pattern(count, seed: Int(offset) + count)
            try device.write(bytes: bytes, at: offset)
            model.replaceSubrange(Int(offset)..<Int(offset) + count, with: bytes)
            #expect(try device.bytes(at: offset, count: count) == bytes)
          }
          #expect(try device.bytes(at: 0, count: model.count) == model)
        }
      }
    },

    Promise("the last byte is part of the device") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        try device.write(bytes: [7], at: 65_535)
        #expect(try device.bytes(at: 65_534, count: 2) == [0, 7])
        try device.discard(65_535..<65_536)
        #expect(try device.bytes(at: 65_535, count: 1) == [0])
      }
    },

    Promise("a range past the end is refused and changes nothing") { kind in
      for (offset, count) in outside {
        try kind.withDevice(byteCount: 65_536) { device in
          let before = pattern(4096, seed: 1)
          try device.write(bytes: before, at: 61_440)
          expectFailure(.read, EINVAL) { _ = try device.bytes(at: offset, count: count) }
          expectFailure(.write, EINVAL) { try device.write(bytes: pattern(count, seed: 2), at: offset) }
          let (end, overflows) = offset.addingReportingOverflow(UInt64(count))
          expectFailure(.discard, EINVAL) { try device.discard(offset..<(overflows ? UInt64.max : end)) }
          #expect(try device.bytes(at: 61_440, count: 4096) == before)
          #expect(device.byteCount == 65_536)
        }
      }
    },

    Promise("a range of no bytes does nothing inside the device and is refused past its end") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        let before = pattern(65_536, seed: 3)
        try device.write(bytes: before, at: 0)
        for offset: UInt64 in [0, 1, 4096, 65_536] {
          #expect(try device.bytes(at: offset, count: 0) == [])
          try device.read(into: UnsafeMutableRawBufferPointer(start: nil, count: 0), at: offset)
          try device.write(UnsafeRawBufferPointer(start: nil, count: 0), at: offset)
          try device.discard(offset..<offset)
        }
        for offset in [65_537, UInt64.max] {
          expectFailure(.read, EINVAL) { _ = try device.bytes(at: offset, count: 0) }
          expectFailure(.write, EINVAL) { try device.write(bytes: [], at: offset) }
          expectFailure(.discard, EINVAL) { try device.discard(offset..<offset) }
        }
        #expect(try device.bytes(at: 0, count: 65_536) == before)
      }
    },

    Promise("a discarded range reads as zeroes and its neighbours stay") { kind in
      try kind.withDevice(byteCount: 16_384) { device in
        let full = pattern(16_384, seed: 4)
        for start in edges {
          for end in edges + [16_384] where start <= end {
            try device.write(bytes: full, at: 0)
            try device.discard(start..<end)
            var expected = full
            expected.replaceSubrange(Int(start)..<Int(end), with: zeroes(Int(end - start)))
            #expect(try device.bytes(at: 0, count: 16_384) == expected, "discarding \(start)..<\(end)")
          }
        }
      }
    },

    Promise("a discarded range takes new bytes") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        try device.write(bytes: pattern(65_536, seed: 5), at: 0)
        try device.discard(0..<65_536)
        try device.write(bytes: [1, 2, 3], at: 9000)
        #expect(try device.bytes(at: 8999, count: 5) == [0, 1, 2, 3, 0])
      }
    },

    Promise("the units of a device are powers of two, and stay; its length has whole sectors") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        let geometry = device.geometry
        for unit in [geometry.sectorByteCount, geometry.discardByteCount] {
          #expect(unit.nonzeroBitCount == 1, "\(unit)")
        }
        #expect(device.byteCount % geometry.sectorByteCount == 0)
        try device.write(bytes: [1], at: 0)
        #expect(device.geometry == geometry)
      }
    },

    Promise("a sync after writes succeeds") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        try device.write(bytes: pattern(5000, seed: 6), at: 100)
        try device.sync()
        try device.sync()
        #expect(try device.bytes(at: 100, count: 5000) == pattern(5000, seed: 6))
      }
    },
  ]

  /// Ranges that do not lie in a device of 64 KiB.
  private static let outside: [(UInt64, Int)] = [
    (65_536, 1), (65_535, 2), (0, 65_537), (65_537, 1), (UInt64(Int64.max), 1), (.max, 1), (.max, 2), (.max - 1, 4096),
  ]

  // MARK: Batches

  private static let batches: [Promise<Kind>] = [
    Promise("the pieces of a batch are read and written each, in whatever order they lie") { kind in
      try withSeededGenerator { generator in
        try kind.withDevice(byteCount: 1 << 20) { device in
          var model = zeroes(1 << 20)
          for round in 0..<40 {
            // Some touch and some do not, and the order is any.
            var pieces: [(offset: UInt64, bytes: [UInt8])] = []
            var next = generator.number(below: 5000 as UInt64)
            while next < 1 << 20, pieces.count < 300 {
              let longest = round % 2 == 0 ? 4096 : 20_000
              let count = min(generator.number(below: longest) + (generator.oneIn(9) ? 0 : 1), (1 << 20) - Int(next))
              pieces.append((next, pattern(count, seed: round * 1000 + pieces.count)))
              next += UInt64(count) + (generator.oneIn(3) ? generator.number(below: 9000 as UInt64) : 0)
            }
            pieces.shuffle(using: &generator)
            try device.write(batch: pieces)
            for (offset, bytes) in pieces {
              model.replaceSubrange(Int(offset)..<Int(offset) + bytes.count, with: bytes)
            }
            #expect(try device.bytes(at: 0, count: model.count) == model, "round \(round)")
            pieces.shuffle(using: &generator)
            let found = try device.bytes(batch: pieces.map { ($0.offset, $0.bytes.count) })
            #expect(found == pieces.map(\.bytes), "round \(round)")
          }
        }
      }
    },

    Promise("a batch may have more pieces than a system call takes") { kind in
      try kind.withDevice(byteCount: 4 << 20) { device in
        let pieces = (0..<2500).map { (offset: UInt64($0 * 1536), bytes: pattern(1536, seed: $0)) }
        try device.write(batch: pieces)
        #expect(try device.bytes(batch: pieces.map { ($0.offset, 1536) }) == pieces.map(\.bytes))
        #expect(try device.bytes(at: 0, count: 2500 * 1536) == Array(pieces.map(\.bytes).joined()))
        try device.sync()
      }
    },

    Promise("a batch of no pieces, or of pieces of no bytes, does nothing") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        let before = pattern(65_536, seed: 8)
        try device.write(bytes: before, at: 0)
        try device.write(batch: [])
        try device.write(batch: [(0, []), (65_536, []), (100, [])])
        #expect(try device.bytes(batch: []) == [])
        #expect(try device.bytes(batch: [(5, 0), (65_536, 0), (5, 2)]) == [[], [], Array(before[5..<7])])
        #expect(try device.bytes(at: 0, count: 65_536) == before)
      }
    },

    Promise("a batch with a piece past the end is refused") { kind in
      try kind.withDevice(byteCount: 65_536) { device in
        for (offset, count) in outside {
          expectFailure(.read, EINVAL) { _ = try device.bytes(batch: [(512, 5), (offset, count)]) }
          expectFailure(.write, EINVAL) { try device.write(batch: [(512, [1]), (offset, pattern(count, seed: 2))]) }
        }
        #expect(device.byteCount == 65_536)
      }
    },
  ]

  // MARK: Journals

  private static let journals: [Promise<Kind>] = [
    Promise("what is stored in the medium of a journal is read back, and nothing beside it changes") { kind in
      try kind.withDevice(byteCount: 262_144) { device in
        var model = pattern(262_144, seed: 9)
        try device.write(bytes: model, at: 0)
        let medium = device.journalMedium(65_536..<196_608)
        var stored = 0
        for (offset, count) in [(0, 80), (80, 4096), (4090, 12), (131_071, 1), (0, 131_072), (77, 0), (131_072, 0)] {
          let bytes = pattern(count, seed: offset + count)
          let result = bytes.withUnsafeBytes { buffer in
            Result { () throws(DeviceError) in try medium.store(buffer, at: UInt64(offset)) }
          }
          try result.get()
          model.replaceSubrange(65_536 + offset..<65_536 + offset + count, with: bytes)
          #expect(try device.bytes(at: 0, count: model.count) == model, "\(count) bytes at \(offset)")
          stored += count
        }
        try device.sync()
        #expect(medium.mappedByteCount == 0 || medium.mappedByteCount == stored)
        #expect(try device.bytes(at: 0, count: model.count) == model)
      }
    }
  ]

  // MARK: What holds storage

  private static let storage: [Promise<Kind>] = [
    Promise("what holds storage is found, and what was never written or was discarded is not") { kind in
      guard kind.tellsStorage else { return }
      let page: UInt64 = 4096
      try kind.withDevice(byteCount: 0) { device in
        // Written pages with pages between them that are not: more than are told at once.
        let pageCount: UInt64 = 1200
        try device.grow(to: pageCount * page)
        try device.discard(0..<pageCount * page)
        #expect(try device.allAllocated(in: 0..<pageCount * page) == [])
        var expected: [Range<UInt64>] = []
        for first in stride(from: UInt64(3), to: pageCount - 10, by: 4) {
          let run = first * page..<(first + 1 + first % 3) * page
          try device.write(bytes: pattern(Int(run.upperBound - run.lowerBound), seed: Int(first)), at: run.lowerBound)
          expected.append(run)
        }
        expected = expected.reduce(into: []) { runs, run in
          if let last = runs.last, last.upperBound == run.lowerBound {
            runs[runs.count - 1] = last.lowerBound..<run.upperBound
          } else {
            runs.append(run)
          }
        }
        #expect(expected.count > 256)
        #expect(try device.allAllocated(in: 0..<pageCount * page) == expected)
        // As well where it is durable.
        try device.sync()
        #expect(try device.allAllocated(in: 0..<pageCount * page) == expected)
        let run = expected[7]
        #expect(
          try device.allocatedRuns(in: run.lowerBound + 1..<run.lowerBound + 3) == [
            run.lowerBound + 1..<run.lowerBound + 3
          ])
        #expect(try device.allocatedRuns(in: run.lowerBound..<run.lowerBound) == [])
        try device.discard(run)
        #expect(try device.allocatedRuns(in: run).isEmpty)
        expectFailure(.findAllocated, EINVAL) { _ = try device.allocatedRuns(in: 0..<pageCount * page + 1) }
      }
    },

    Promise("a device that cannot tell what holds storage says so") { kind in
      guard !kind.tellsStorage else { return }
      try kind.withDevice(byteCount: 65_536) { device in
        expectFailure(.findAllocated, EOPNOTSUPP) { _ = try device.allocatedRuns(in: 0..<4096) }
        expectFailure(.findAllocated, EINVAL) { _ = try device.allocatedRuns(in: 0..<65_537) }
      }
    },
  ]

  // MARK: Growing

  private static let growth: [Promise<Kind>] = [
    Promise("a device that grew keeps its bytes and has zeroes after them") { kind in
      guard kind.grows else { return }
      try kind.withDevice(byteCount: 5000) { device in
        #expect(device.canGrow)
        let old = pattern(5000, seed: 7)
        try device.write(bytes: old, at: 0)
        expectFailure(.write, EINVAL) { try device.write(bytes: [1], at: 5000) }
        try device.grow(to: 100_001)
        #expect(device.byteCount == 100_001)
        #expect(try device.bytes(at: 0, count: 100_001) == old + zeroes(95_001))
        try device.write(bytes: [9], at: 100_000)
        #expect(try device.bytes(at: 100_000, count: 1) == [9])
      }
    },

    Promise("a device never becomes shorter") { kind in
      guard kind.grows else { return }
      try kind.withDevice(byteCount: 8192) { device in
        try device.grow(to: 8192)
        try device.grow(to: 1)
        try device.grow(to: 0)
        #expect(device.byteCount == 8192)
      }
    },

    Promise("a device of no bytes can grow") { kind in
      guard kind.grows else { return }
      try kind.withDevice(byteCount: 0) { device in
        expectFailure(.read, EINVAL) { _ = try device.bytes(at: 0, count: 1) }
        try device.grow(to: 4096)
        try device.write(bytes: [5], at: 4095)
        #expect(try device.bytes(at: 4094, count: 2) == [0, 5])
      }
    },

    Promise("a device of a fixed length says so, and keeps its length") { kind in
      guard !kind.grows else { return }
      try kind.withDevice(byteCount: 65_536) { device in
        #expect(!device.canGrow)
        expectFailure(.grow, EOPNOTSUPP) { try device.grow(to: 131_072) }
        #expect(device.byteCount == 65_536)
      }
    },
  ]

  // MARK: Many threads on one device. The thread sanitizer runs these.

  private static let threads: [Promise<Kind>] = [
    Promise("threads on ranges of their own do not disturb each other") { kind in
      guard kind.grows else { return }
      try kind.withDevice(byteCount: 8 * 10_000) { device in
        try inThreads(8) { thread in
          let offset = UInt64(thread) * 10_000
          for round in 0..<12 {
            let bytes = pattern(10_000, seed: thread * 1000 + round)
            if round % 2 == 0 {
              try device.write(bytes: bytes, at: offset)
              try check(try device.bytes(at: offset, count: 10_000) == bytes, "\(thread), \(round): one piece")
            } else {
              try device.write(batch: [(offset + 4000, Array(bytes[4000...])), (offset, Array(bytes[..<4000]))])
              let found = try device.bytes(batch: [(offset, 7000), (offset + 7000, 3000)])
              try check(Array(found.joined()) == bytes, "\(thread), \(round): two pieces")
            }
            try device.discard(offset + 1..<offset + 9999)
            let rest = try device.bytes(at: offset, count: 10_000)
            try check(rest.first == bytes.first && rest.last == bytes.last, "\(thread), \(round): the edges")
            try check(Array(rest.dropFirst().dropLast()) == zeroes(9998), "\(thread), \(round): what was discarded")
            if round % 4 == 0 { try device.sync() }
          }
        }
      }
    },

    Promise("growing from many threads ends at the greatest length") { kind in
      guard kind.grows else { return }
      try kind.withDevice(byteCount: 4096) { device in
        try inThreads(4) { thread in
          for round in 0..<50 {
            let target = UInt64(4096 + (round * 4 + thread) * 1000)
            try device.grow(to: target)
            try check(device.byteCount >= target, "\(thread), \(round): \(device.byteCount)")
            try device.write(bytes: [UInt8(thread)], at: target - 1 - UInt64(thread))
          }
        }
        #expect(device.byteCount == 4096 + 199 * 1000)
      }
    },
  ]
}

extension BlockDevice {
  /// The bytes of a range.
  package func bytes(at offset: UInt64, count: Int) throws(DeviceError) -> [UInt8] {
    // Not zero, so that a read that leaves bytes alone shows.
    var bytes = [UInt8](repeating: 0xEE, count: count)
    let result = bytes.withUnsafeMutableBytes { buffer in
      Result { () throws(DeviceError) in try read(into: buffer, at: offset) }
    }
    try result.get()
    return bytes
  }

  /// Writes bytes at an offset.
  package func write(bytes: [UInt8], at offset: UInt64) throws(DeviceError) {
    let result = bytes.withUnsafeBytes { buffer in
      Result { () throws(DeviceError) in try write(buffer, at: offset) }
    }
    try result.get()
  }

  /// The bytes of many ranges, read as one batch.
  package func bytes(batch: [(offset: UInt64, count: Int)]) throws(DeviceError) -> [[UInt8]] {
    let buffers = batch.map { UnsafeMutableRawBufferPointer.allocate(byteCount: $0.count, alignment: 1) }
    defer { for buffer in buffers { buffer.deallocate() } }
    for buffer in buffers { buffer.initializeMemory(as: UInt8.self, repeating: 0xEE) }
    try read(zip(batch, buffers).map { DeviceRead($1, at: $0.offset) })
    return buffers.map { Array($0) }
  }

  /// Writes many pieces as one batch.
  package func write(batch: [(offset: UInt64, bytes: [UInt8])]) throws(DeviceError) {
    let buffers = batch.map { piece in
      let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: piece.bytes.count, alignment: 1)
      buffer.copyBytes(from: piece.bytes)
      return buffer
    }
    defer { for buffer in buffers { buffer.deallocate() } }
    try write(zip(batch, buffers).map { DeviceWrite(UnsafeRawBufferPointer($1), at: $0.offset) })
  }

  /// All runs of `range` that hold storage, joined where they touch.
  package func allAllocated(in range: Range<UInt64>) throws -> [Range<UInt64>] {
    var all: [Range<UInt64>] = []
    var start = range.lowerBound
    while start < range.upperBound {
      let runs = try allocatedRuns(in: start..<range.upperBound)
      guard let end = runs.last?.upperBound else { break }
      for (run, next) in zip(runs, runs.dropFirst()) { #expect(run.upperBound < next.lowerBound) }
      for run in runs {
        if let last = all.last, last.upperBound == run.lowerBound {
          all[all.count - 1] = last.lowerBound..<run.upperBound
        } else {
          all.append(run)
        }
      }
      start = end
    }
    return all
  }
}

/// Checks that `body` fails with a `DeviceError` of this operation and error number.
package func expectFailure(
  _ operation: DeviceError.Operation, _ errno: Int32, sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () throws -> Void
) {
  let error = #expect(throws: DeviceError.self, sourceLocation: sourceLocation) { try body() }
  #expect(error?.operation == operation, sourceLocation: sourceLocation)
  #expect(error?.errno == errno, sourceLocation: sourceLocation)
}

/// That many zeroes.
package func zeroes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }
