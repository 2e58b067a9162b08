import Devices
import Glibc
import LacunaTestSupport
import Testing

/// What every `BlockDevice` promises, on every kind there is.
@Suite struct BlockDeviceConformanceTests {
  /// Numbers around the sizes that sectors, blocks and pages have.
  static let edges: [UInt64] = [0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8192, 12_289]

  @Test(arguments: DeviceKind.available)
  func `a new device reads as zeroes`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      let bytes = try device.bytes(at: 0, count: 65_536)
      #expect(bytes == zeroes(65_536))
      #expect(device.byteCount == 65_536)
    }
  }

  @Test(arguments: DeviceKind.available)
  func `bytes written at any alignment are read back and their neighbours stay`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      var model = zeroes(65_536)
      for offset in Self.edges {
        for count in Self.edges.map({ Int($0) }) {
          let bytes = pattern(count, seed: Int(offset) + count)
          try device.write(bytes: bytes, at: offset)
          model.replaceSubrange(Int(offset)..<Int(offset) + count, with: bytes)
          #expect(try device.bytes(at: offset, count: count) == bytes)
        }
        #expect(try device.bytes(at: 0, count: model.count) == model)
      }
    }
  }

  @Test(arguments: DeviceKind.available)
  func `the last byte is part of the device`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      try device.write(bytes: [7], at: 65_535)
      #expect(try device.bytes(at: 65_534, count: 2) == [0, 7])
      try device.discard(65_535..<65_536)
      #expect(try device.bytes(at: 65_535, count: 1) == [0])
    }
  }

  @Test(
    arguments: DeviceKind.available,
    [
      (UInt64(65_536), 1), (65_535, 2), (0, 65_537), (65_537, 1), (UInt64(Int64.max), 1), (UInt64.max, 1),
      (UInt64.max, 2), (UInt64.max - 1, 4096),
    ])
  func `a range past the end is refused and changes nothing`(kind: DeviceKind, range: (UInt64, Int)) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      let before = pattern(4096, seed: 1)
      try device.write(bytes: before, at: 61_440)
      expectFailure(.read, EINVAL) { _ = try device.bytes(at: range.0, count: range.1) }
      expectFailure(.write, EINVAL) { try device.write(bytes: pattern(range.1, seed: 2), at: range.0) }
      let (end, overflows) = range.0.addingReportingOverflow(UInt64(range.1))
      expectFailure(.discard, EINVAL) { try device.discard(range.0..<(overflows ? UInt64.max : end)) }
      #expect(try device.bytes(at: 61_440, count: 4096) == before)
      #expect(device.byteCount == 65_536)
    }
  }

  @Test(arguments: DeviceKind.available)
  func `a range of no bytes does nothing inside the device and is refused past its end`(kind: DeviceKind) throws {
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
  }

  @Test(arguments: DeviceKind.available)
  func `a discarded range reads as zeroes and its neighbours stay`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 16_384) { device in
      let full = pattern(16_384, seed: 4)
      for start in Self.edges {
        for end in Self.edges + [16_384] where start <= end {
          try device.write(bytes: full, at: 0)
          try device.discard(start..<end)
          var expected = full
          expected.replaceSubrange(
            Int(start)..<Int(end), with: zeroes(Int(end - start)))
          #expect(try device.bytes(at: 0, count: 16_384) == expected, "discarding \(start)..<\(end)")
        }
      }
    }
  }

  @Test(arguments: DeviceKind.available)
  func `a discarded range takes new bytes`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      try device.write(bytes: pattern(65_536, seed: 5), at: 0)
      try device.discard(0..<65_536)
      try device.write(bytes: [1, 2, 3], at: 9000)
      #expect(try device.bytes(at: 8999, count: 5) == [0, 1, 2, 3, 0])
    }
  }

  @Test(arguments: [DeviceKind.memory, .file])
  func `what holds storage is found, and what was never written or was discarded is not`(kind: DeviceKind) throws {
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
  }

  @Test func `storage that a file has and was never written is found, where the file system tells`() throws {
    try DeviceKind.file.withDevice(byteCount: 4096) { device in
      try device.grow(to: 9 << 20)
      let held = try device.allAllocated(in: 0..<9 << 20).reduce(0) { $0 + $1.upperBound - $1.lowerBound }
      #expect(held >= 8 << 20 || held == 0, "\(held)")
      try device.discard(1 << 20..<9 << 20)
      #expect(try device.allAllocated(in: 1 << 20..<9 << 20) == [])
    }
  }

  @Test(arguments: DeviceKind.available.filter { $0 == .loop || $0 == .scratch })
  func `some devices cannot tell what holds storage`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      expectFailure(.findAllocated, EOPNOTSUPP) { _ = try device.allocatedRuns(in: 0..<4096) }
      expectFailure(.findAllocated, EINVAL) { _ = try device.allocatedRuns(in: 0..<65_537) }
    }
  }

  @Test(arguments: DeviceKind.available)
  func `a sync after writes succeeds`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 65_536) { device in
      try device.write(bytes: pattern(5000, seed: 6), at: 100)
      try device.sync()
      try device.sync()
      #expect(try device.bytes(at: 100, count: 5000) == pattern(5000, seed: 6))
    }
  }

  @Test(arguments: DeviceKind.growing)
  func `a device that grew keeps its bytes and has zeroes behind them`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 5000) { device in
      let old = pattern(5000, seed: 7)
      try device.write(bytes: old, at: 0)
      expectFailure(.write, EINVAL) { try device.write(bytes: [1], at: 5000) }
      try device.grow(to: 100_001)
      #expect(device.byteCount == 100_001)
      #expect(try device.bytes(at: 0, count: 100_001) == old + zeroes(95_001))
      try device.write(bytes: [9], at: 100_000)
      #expect(try device.bytes(at: 100_000, count: 1) == [9])
    }
  }

  @Test(arguments: DeviceKind.growing)
  func `a device never becomes shorter`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 8192) { device in
      try device.grow(to: 8192)
      try device.grow(to: 1)
      try device.grow(to: 0)
      #expect(device.byteCount == 8192)
    }
  }

  @Test(arguments: DeviceKind.growing)
  func `a device of no bytes can grow`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 0) { device in
      expectFailure(.read, EINVAL) { _ = try device.bytes(at: 0, count: 1) }
      try device.grow(to: 4096)
      try device.write(bytes: [5], at: 4095)
      #expect(try device.bytes(at: 4094, count: 2) == [0, 5])
    }
  }
}

/// Many threads on one device. The thread sanitizer runs these.
@Suite struct BlockDeviceConcurrencyTests {
  @Test(arguments: DeviceKind.growing)
  func `threads on ranges of their own do not disturb each other`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 8 * 10_000) { device in
      try inThreads(8) { thread in
        let offset = UInt64(thread) * 10_000
        for round in 0..<12 {
          let bytes = pattern(10_000, seed: thread * 1000 + round)
          try device.write(bytes: bytes, at: offset)
          #expect(try device.bytes(at: offset, count: 10_000) == bytes)
          try device.discard(offset + 1..<offset + 9999)
          let rest = try device.bytes(at: offset, count: 10_000)
          #expect(rest.first == bytes.first && rest.last == bytes.last)
          #expect(Array(rest.dropFirst().dropLast()) == zeroes(9998))
          if round % 4 == 0 { try device.sync() }
        }
      }
    }
  }

  @Test(arguments: DeviceKind.growing)
  func `growing from many threads ends at the greatest length`(kind: DeviceKind) throws {
    try kind.withDevice(byteCount: 4096) { device in
      try inThreads(4) { thread in
        for round in 0..<50 {
          let target = UInt64(4096 + (round * 4 + thread) * 1000)
          try device.grow(to: target)
          #expect(device.byteCount >= target)
          try device.write(bytes: [UInt8(thread)], at: target - 1 - UInt64(thread))
        }
      }
      #expect(device.byteCount == 4096 + 199 * 1000)
    }
  }
}

extension BlockDevice {
  /// All runs of `range` that hold storage, joined where they touch.
  fileprivate func allAllocated(in range: Range<UInt64>) throws -> [Range<UInt64>] {
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
