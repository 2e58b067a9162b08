import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// Devices whose reads return, with no error, what was never written there.
@Suite(.slow) struct EngineReadFaultTests {
  private static let blockCount = 48

  private static func bytes(_ block: Int, version: Int) -> [UInt8] {
    var generator = SeededGenerator(seed: UInt64(block * 10 + version))
    return generator.nonZeroBytes(1024)
  }

  /// A store whose blocks were all written twice, and where the two versions of each are.
  private static func make() throws -> (image: MediumImage, shape: CrashShape, places: [[UInt64]]) {
    let shape = CrashShape(name: "reads", diskByteCount: blockCount * 1024)
    let device = CrashDevice(byteCount: 0, maximumByteCount: shape.limitByteCount)
    try FaultStore.format(device, shape)
    let store = try FaultStore(opening: device, shape)
    for version in 0..<2 {
      for block in 0..<blockCount {
        try bytes(block, version: version).withUnsafeBytes { try store.volumes[0].write($0, at: UInt64(block * 1024)) }
      }
      // With the first version in the tree, its blocks are still there when the second is.
      try store.engine.checkpoint()
    }
    store.close()
    let image = device.image
    var found: [[UInt8]: UInt64] = [:]
    for block in 0..<image.byteCount / 1024 { found[image.bytes(block * 1024..<block * 1024 + 1024)] = block }
    let places = try (0..<blockCount).map { block in
      try (0..<2).map { try #require(found[bytes(block, version: $0)]) }
    }
    return (image, shape, places)
  }

  @Test func `a block that reads wrong is an error for exactly its bytes`() throws {
    let (image, shape, places) = try Self.make()
    let device = FaultyDevice(CrashDevice(image, maximumByteCount: shape.limitByteCount))
    let store = try FaultStore(opening: device, shape)
    let volume = store.volumes[0]
    try withSeededGenerator { generator in
      var count = 0
      for block in 0..<Self.blockCount {
        let other = places[(block + 1) % Self.blockCount][1]
        let kinds: [ReadCorruption] = [
          .flippedBit(generator.number(below: 8192 as UInt64)), .zeroes, .bytes(from: places[block][0] * 1024),
          .bytes(from: other * 1024),
        ]
        for kind in kinds {
          device.corruptReads(of: places[block][1] * 1024..<places[block][1] * 1024 + 1024, kind)
          try Self.check(volume, bad: block)
          // A write of a part of the block would make what was read right for ever.
          #expect(Self.isDamaged { try [1].withUnsafeBytes { try volume.write($0, at: UInt64(block * 1024 + 5)) } })
          device.clearFaults()
          count += 1
        }
      }
      try Self.check(volume, bad: nil)
      print("reads: \(count)")
    }
    store.close()
  }

  private static func check(_ volume: DiskVolume, bad: Int?) throws {
    var found = [UInt8](repeating: 0, count: 1024)
    for block in 0..<blockCount {
      let isDamaged = isDamaged {
        try found.withUnsafeMutableBytes { try volume.read(into: $0, at: UInt64(block * 1024)) }
      }
      if isDamaged != (block == bad) { throw CheckFailure("block \(block), where \(bad ?? -1) is bad: \(isDamaged)") }
      if !isDamaged, found != bytes(block, version: 1) { throw CheckFailure("block \(block) has wrong bytes") }
    }
    var all = [UInt8](repeating: 0, count: blockCount * 1024)
    let isDamaged = isDamaged { try all.withUnsafeMutableBytes { try volume.read(into: $0, at: 0) } }
    if isDamaged != (bad != nil) { throw CheckFailure("all blocks, where \(bad ?? -1) is bad: \(isDamaged)") }
  }

  private static func isDamaged(_ body: () throws -> Void) -> Bool {
    do { try body() } catch { return (error as? ExtentFSError)?.code == .damaged }
    return false
  }

  @Test func `metadata that reads wrong is an error or makes no difference`() throws {
    let store = try HostileStore()
    let expectation = store.ledgers.expectation()
    try withSeededGenerator { generator in
      for block in store.seals.blocks {
        let other = store.seals.blocks[generator.number(below: store.seals.blocks.count)].block
        for kind in [
          .flippedBit(generator.number(below: 8192 as UInt64)), .zeroes, .bytes(from: other * 1024),
        ] as [ReadCorruption] {
          let device = FaultyDevice(store.device())
          device.corruptReads(of: block.block * 1024..<block.block * 1024 + 1024, kind)
          do {
            let opened = try FaultStore(opening: device, HostileStore.shape)
            try opened.checkVolumes(expectation)
          } catch is ExtentFSError {} catch { throw CheckFailure("\(block.kind) \(block.block), \(kind): \(error)") }
          // On the medium all is well.
          let reborn = try FaultStore(opening: store.device(), HostileStore.shape)
          try reborn.checkVolumes(expectation)
          reborn.close()
        }
      }
    }
  }
}
