import Atomics
import Bytes
import Devices
import Glibc
import LacunaTestSupport
import Testing

@testable import ExtentFS

/// Which volumes are open, and what a checkpoint may rely on.
@Suite struct VolumeTableTests {
  private func engine() throws -> Engine {
    let device = try MemoryDevice(byteCount: 0, maximumByteCount: 64 << 20)
    var format = FormatOptions()
    format.journalByteCount = 1 << 20
    try Engine.format(device, format)
    return try Engine.open(device, EngineOptions()).engine
  }

  private func write(_ volume: DiskVolume, _ byte: UInt8) throws {
    try [UInt8](repeating: byte, count: 4096).withUnsafeBytes { try volume.write($0, at: 0) }
  }

  @Test func `a volume is open as long as it has users or changes`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    try engine.checkpoint()
    #expect(engine.volumes.inodes == [volume.inode])
    try write(volume, 1)
    engine.closeVolume(volume)
    #expect(engine.volumes.count == 1)
    try engine.checkpoint()
    try engine.checkpoint()
    #expect(engine.volumes.count == 0)
  }

  @Test func `what was found in an older catalog is not opened`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    let record = try #require(try engine.volumeRecord(of: volume.inode))
    let generation = engine.superblocks.newest.generation
    guard case .isOld = engine.volumes.open(volume.inode, record, asOf: generation - 1, userCount: 1) else {
      throw CheckFailure("opened by an older catalog")
    }
    #expect(engine.volumes.userCount(of: volume.inode) == 1)
  }

  @Test func `what is held is not opened, and what has users is held by force alone`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    let record = try #require(try engine.volumeRecord(of: volume.inode))
    let generation = engine.superblocks.newest.generation
    let busy = #expect(throws: ExtentFSError.self) {
      try engine.volumes.hold(volume.inode, record, force: false)
    }
    #expect(busy?.code == .busy)
    let held = try engine.volumes.hold(volume.inode, record, force: true)
    guard case .isHeld = engine.volumes.open(volume.inode, record, asOf: generation, userCount: 1) else {
      throw CheckFailure("opened while it is held")
    }
    engine.volumes.release([held])
    guard case .open(let again) = engine.volumes.open(volume.inode, record, asOf: generation, userCount: 1) else {
      throw CheckFailure("not opened after it was released")
    }
    #expect(again === volume.state && engine.volumes.userCount(of: volume.inode) == 2)
  }

  @Test func `an end of use of what was deleted takes no user from what has the inode now`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    engine.volumes.remove(volume.state)
    let again = try #require(try engine.openVolume(named: "v"))
    #expect(again.state !== volume.state)
    engine.closeVolume(volume)
    #expect(engine.volumes.userCount(of: again.inode) == 1)
  }

  @Test func `a write to a volume that is exclusive waits, without its lock, and is made afterwards`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    let (isExclusive, isWritten) = (ManagedAtomic(false), ManagedAtomic(false))
    try inThreads([
      {
        try engine.checkpoints.withTurn { _ throws(ExtentFSError) in
          _ = volume.state.beginExclusive()
          isExclusive.store(true, ordering: .releasing)
          // Long enough for a write that nothing stops.
          for _ in 0..<200 where !isWritten.load(ordering: .acquiring) { usleepMilliseconds(1) }
          // The lock of the writers is free all the time.
          _ = volume.state.quota
          let early = isWritten.load(ordering: .acquiring)
          volume.state.endExclusive()
          guard !early else { throw ExtentFSError(.failed, "written while it was exclusive") }
        }
      },
      {
        while !isExclusive.load(ordering: .acquiring) { usleepMilliseconds(1) }
        try write(volume, 7)
        isWritten.store(true, ordering: .releasing)
      },
    ])
    let isDone = isWritten.load(ordering: .acquiring)
    #expect(isDone)
    var byte: UInt8 = 0
    try withUnsafeMutableBytes(of: &byte) { try volume.read(into: $0, at: 0) }
    #expect(byte == 7)
  }

  @Test func `an error of a read has the volume that it names`() throws {
    let engine = try engine()
    let volume = try engine.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
    var block = [UInt8](repeating: 0, count: 4096)
    let error = #expect(throws: ExtentFSError.self) {
      try block.withUnsafeMutableBytes { try engine.blocks.read($0, from: 1 << 40, for: volume.state, at: 0) }
    }
    #expect(error?.code == .damaged && error?.volume == "v")
  }

  @Test func `an engine goes with its last reference, closed or not`() throws {
    weak var engine: Engine?
    weak var state: OpenVolume?
    do {
      let opened = try self.engine()
      let volume = try opened.createVolume(named: "v", byteCount: 1 << 20, createdSeconds: 0)
      try write(volume, 1)
      (engine, state) = (opened, volume.state)
    }
    #expect(engine == nil && state == nil)
  }
}

private func usleepMilliseconds(_ count: UInt32) { usleep(count * 1000) }
