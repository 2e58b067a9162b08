import Glibc
import NBDTestSupport
import Testing

private let block = PluginUnderTest.blockBytes

/// Starts a server and checks what block status says of a range after `body`.
private func expectAllocation(
  _ engine: Engine, of range: Range<UInt64>, _ expected: [AllocationExtent],
  sourceLocation: SourceLocation = #_sourceLocation, after body: (NBDClient) throws -> Void
) throws {
  try NBDServer.run(PluginUnderTest.command(engine)) { server in
    let client = try NBDClient(socketPath: server.socketPath)
    try body(client)
    #expect(try client.allocation(of: range) == expected, sourceLocation: sourceLocation)
  }
}

/// `count` blocks from block `first` in one state.
private func blocks(_ first: UInt64, _ count: UInt64, _ state: AllocationState) -> AllocationExtent {
  AllocationExtent(offset: first * block, byteCount: count * block, state: state)
}

private func pattern(_ blockCount: UInt64) -> [UInt8] { [UInt8](repeating: 0x5a, count: Int(blockCount * block)) }

@Suite struct `Block status` {
  @Test(arguments: Engine.withHoles)
  func `a fresh volume is one hole`(_ engine: Engine) throws {
    try expectAllocation(engine, of: 0..<64 << 20, [blocks(0, 16_384, [.hole, .zero])]) { _ in }
  }

  @Test(arguments: Engine.withHoles)
  func `what was written is data and its neighbours stay holes`(_ engine: Engine) throws {
    try expectAllocation(
      engine, of: 0..<100 * block,
      [blocks(0, 10, [.hole, .zero]), blocks(10, 5, .data), blocks(15, 85, [.hole, .zero])]
    ) { try $0.write(pattern(5), at: 10 * block) }
  }

  @Test(arguments: Engine.withHoles)
  func `one written byte makes its whole block data`(_ engine: Engine) throws {
    try expectAllocation(
      engine, of: 0..<10 * block,
      [blocks(0, 3, [.hole, .zero]), blocks(3, 1, .data), blocks(4, 6, [.hole, .zero])]
    ) { try $0.write([1], at: 4 * block - 1) }
  }

  @Test(arguments: Engine.withHoles)
  func `neighbouring writes are one run of data`(_ engine: Engine) throws {
    try expectAllocation(
      engine, of: 0..<64 * block, [blocks(0, 48, .data), blocks(48, 16, [.hole, .zero])]
    ) { client in
      // In an order that puts no two neighbours after one another.
      for index in 0..<UInt64(48) { try client.write(pattern(1), at: (index * 29 % 48) * block) }
    }
  }

  @Test(arguments: Engine.withHoles)
  func `a zeroed range that may be trimmed is a hole`(_ engine: Engine) throws {
    try expectAllocation(
      engine, of: 0..<20 * block,
      [blocks(0, 5, .data), blocks(5, 8, [.hole, .zero]), blocks(13, 7, .data)]
    ) { client in
      try client.write(pattern(20), at: 0)
      try client.zero(8 * block, at: 5 * block)
      #expect(try client.read(Int(8 * block), at: 5 * block).allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: Engine.withHoles, [true, false])
  func `a range zeroed with no-hole stays allocated`(_ engine: Engine, _ wasWritten: Bool) throws {
    let around: AllocationState = wasWritten ? .data : [.hole, .zero]
    // For the chain, written zeroes are data like any other, and one run with the data around them.
    let expected =
      engine.stateAfterZeroWithoutHole == around
      ? [blocks(0, 20, around)]
      : [blocks(0, 5, around), blocks(5, 8, engine.stateAfterZeroWithoutHole), blocks(13, 7, around)]
    try expectAllocation(engine, of: 0..<20 * block, expected) { client in
      if wasWritten { try client.write(pattern(20), at: 0) }
      try client.zero(8 * block, at: 5 * block, flags: .noHole)
      #expect(try client.read(Int(8 * block), at: 5 * block).allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: Engine.withHoles)
  func `a trimmed range is a hole and reads as zeroes`(_ engine: Engine) throws {
    try expectAllocation(
      engine, of: 0..<20 * block,
      [blocks(0, 5, .data), blocks(5, 8, [.hole, .zero]), blocks(13, 7, .data)]
    ) { client in
      try client.write(pattern(20), at: 0)
      try client.trim(8 * block, at: 5 * block)
      #expect(try client.read(Int(8 * block), at: 5 * block).allSatisfy { $0 == 0 })
    }
  }

  @Test(arguments: Engine.withHoles, [false, true])
  func `an unaligned zero or trim makes holes of the whole blocks inside it`(_ engine: Engine, _ trims: Bool) throws {
    try expectAllocation(
      engine, of: 0..<20 * block,
      [blocks(0, 6, .data), blocks(6, 6, [.hole, .zero]), blocks(12, 8, .data)]
    ) { client in
      try client.write(pattern(20), at: 0)
      let range = 5 * block + 100..<12 * block + 77
      if trims {
        try client.trim(UInt64(range.count), at: range.lowerBound)
      } else {
        try client.zero(UInt64(range.count), at: range.lowerBound)
        #expect(try client.read(range.count, at: range.lowerBound).allSatisfy { $0 == 0 })
      }
      // The bytes beside the range stay.
      #expect(try client.read(100, at: 5 * block).allSatisfy { $0 == 0x5a })
      #expect(try client.read(100, at: range.upperBound).allSatisfy { $0 == 0x5a })
    }
  }

  @Test(arguments: Engine.withHoles)
  func `writing into a hole or into reserved zeroes makes data of it again`(_ engine: Engine) throws {
    try expectAllocation(engine, of: 0..<20 * block, [blocks(0, 20, .data)]) { client in
      try client.write(pattern(20), at: 0)
      try client.trim(8 * block, at: 0)
      try client.zero(8 * block, at: 8 * block, flags: .noHole)
      for index in stride(from: UInt64(0), to: 20, by: 1) { try client.write([7], at: index * block + 9) }
      var expected = [UInt8](repeating: 0, count: Int(block))
      expected[9] = 7
      for index in [UInt64(3), 11] { #expect(try client.read(Int(block), at: index * block) == expected) }
    }
  }

  @Test(arguments: Engine.allCases, [CommandFlags.fastZero, [.fastZero, .noHole]])
  func `a fast zero zeroes or says that it cannot`(_ engine: Engine, _ flags: CommandFlags) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write(pattern(20), at: 0)
      do {
        try client.zero(8 * block, at: 5 * block, flags: flags)
        #expect(try client.read(Int(8 * block), at: 5 * block).allSatisfy { $0 == 0 })
        let state = flags.contains(.noHole) ? engine.stateAfterZeroWithoutHole : [.hole, .zero]
        #expect(try client.allocation(of: 5 * block..<13 * block) == [blocks(5, 8, state)])
      } catch let error as NBDError {
        // Extents can always zero at once, a hole is quick in any store of blocks, and an array of bytes has neither.
        #expect(engine == .bytes || engine == .chain && flags.contains(.noHole))
        #expect(error.code == ENOTSUP, "fast zero failed with \(error) and not with ENOTSUP")
        #expect(try client.read(Int(20 * block), at: 0) == pattern(20))
      }
    }
  }

  @Test(arguments: Engine.withHoles)
  func `a request for one extent gets one, clipped to the range`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write(pattern(4), at: 4 * block)
      func one(_ offset: UInt64, _ byteCount: UInt64) throws -> [AllocationExtent] {
        try client.blockStatus(byteCount, at: offset, flags: .requestOne)
      }
      let hole: AllocationState = [.hole, .zero]
      #expect(try one(0, 16 * block) == [AllocationExtent(offset: 0, byteCount: 4 * block, state: hole)])
      #expect(try one(1_000, 2_000) == [AllocationExtent(offset: 1_000, byteCount: 2_000, state: hole)])
      #expect(try one(4 * block + 5, 7) == [AllocationExtent(offset: 4 * block + 5, byteCount: 7, state: .data)])
      #expect(
        try one(5 * block + 5, 64 * block)
          == [AllocationExtent(offset: 5 * block + 5, byteCount: 3 * block - 5, state: .data)])
      #expect(try one(8 * block, 1 << 20) == [AllocationExtent(offset: 8 * block, byteCount: 1 << 20, state: hole)])
    }
  }

  @Test(arguments: Engine.allCases)
  func `an answer never reaches past the range asked for`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write(pattern(3), at: 7 * block)
      for offset in [0, 1, 4_095, 6 * block, 7 * block + 1, 9 * block, 10 * block - 1, (64 << 20) - 1] as [UInt64] {
        for byteCount in [1, 2, 511, 4_096, 3 * block, 20 * block + 1] as [UInt64] where offset + byteCount <= 64 << 20
        {
          for flags in [CommandFlags(), .requestOne] {
            let answer = try client.blockStatus(byteCount, at: offset, flags: flags)
            let total = answer.reduce(0) { $0 + $1.byteCount }
            try #require(total >= 1 && total <= byteCount, "\(byteCount) bytes at \(offset): \(answer)")
          }
        }
      }
    }
  }

  @Test(arguments: Engine.allCases)
  func `what block status calls zero reads as zeroes`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine)) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      try client.write(pattern(100), at: 0)
      try client.zero(10 * block + 5, at: 3)
      try client.zero(10 * block + 5, at: 20 * block + 3, flags: .noHole)
      try client.trim(10 * block + 5, at: 40 * block + 3)
      try client.write([1], at: 45 * block)
      let extents = try client.allocation(of: 0..<200 * block)
      #expect(extents.last?.end == 200 * block)
      for extent in extents where extent.state.contains(.zero) {
        #expect(try client.read(Int(extent.byteCount), at: extent.offset).allSatisfy { $0 == 0 }, "\(extent)")
      }
    }
  }
}

// nbdkit before 1.38.6 aborts where a plugin gives it an extent of 4 GiB or more for a shorter question.
@Suite struct `Holes of more than 4 GiB` {
  private let size: UInt64 = 16 << 30

  @Test(arguments: Engine.withHoles)
  func `a hole of 16 GiB is told in pieces that fit`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "16G")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      let fourGiB: UInt64 = 1 << 32
      for flags in [CommandFlags(), .requestOne] {
        for offset in [0, 1, fourGiB - 1, fourGiB, fourGiB + 1, 3 * fourGiB - 5_000, size - fourGiB, size - 1] {
          for asked in [1, 4_096, 1 << 20, 1 << 31, NBDClient.requestBytesMax] as [UInt64] where offset + asked <= size
          {
            let answer = try client.blockStatus(asked, at: offset, flags: flags)
            #expect(answer == [AllocationExtent(offset: offset, byteCount: asked, state: [.hole, .zero])])
          }
        }
      }
      #expect(
        try client.allocation(of: 0..<size) == [AllocationExtent(offset: 0, byteCount: size, state: [.hole, .zero])])
    }
  }

  @Test(arguments: Engine.withHoles)
  func `islands of data in 16 GiB are found and can be trimmed away`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "16G")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      let islands: [UInt64] = [1 << 20, (1 << 32) - 4_096, 5 << 30, size - 4_096]
      for island in islands { try client.write([UInt8](repeating: 3, count: 4_096), at: island) }
      let data = try client.allocation(of: 0..<size).filter { $0.state == .data }
      #expect(data == islands.map { AllocationExtent(offset: $0, byteCount: 4_096, state: .data) })
      for offset in stride(from: 0, to: size, by: 1 << 31) { try client.trim(1 << 31, at: offset) }
      #expect(try client.allocation(of: 0..<size).map(\.state) == [[.hole, .zero]])
    }
  }

  @Test(arguments: Engine.withHoles)
  func `one zero request of almost 4 GiB punches a hole at once`(_ engine: Engine) throws {
    try NBDServer.run(PluginUnderTest.command(engine, size: "16G")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      for island in stride(from: UInt64(0), to: 8 << 30, by: 1 << 30) { try client.write([3], at: island) }
      // From within the first block to within the block of the island at 4 GiB, both of which are then part zeroes.
      try client.zero(NBDClient.requestBytesMax, at: 1_000)
      let data = try client.allocation(of: 0..<size).filter { $0.state == .data }.map(\.offset)
      #expect(data == [0, 4 << 30, 5 << 30, 6 << 30, 7 << 30])
      #expect(try client.read(1, at: 4 << 30) == [0])
      #expect(try client.read(1, at: 5 << 30) == [3])
    }
  }

  @Test func `an almost 4 GiB range can be reserved as zeroes without storing any`() throws {
    try NBDServer.run(PluginUnderTest.command(.extent, size: "16G")) { server in
      let client = try NBDClient(socketPath: server.socketPath)
      let byteCount = (UInt64(1) << 32) - block
      try client.zero(byteCount, at: 3 * block, flags: [.noHole, .fastZero])
      #expect(
        try client.allocation(of: 0..<size) == [
          AllocationExtent(offset: 0, byteCount: 3 * block, state: [.hole, .zero]),
          AllocationExtent(offset: 3 * block, byteCount: byteCount, state: .zero),
          AllocationExtent(
            offset: 3 * block + byteCount, byteCount: size - byteCount - 3 * block, state: [.hole, .zero]),
        ])
    }
  }
}
