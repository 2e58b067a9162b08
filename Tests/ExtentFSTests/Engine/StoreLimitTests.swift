import Bytes
import Devices
import ExtentFS
import LacunaTestSupport
import Testing

/// The limit that a store has for itself: what its file does not grow beyond, whoever opens it.
@Suite struct StoreLimitTests {
  private static let mebibyte: UInt64 = 1 << 20

  /// A store with one large volume.
  private struct Fixture {
    let device: MemoryDevice
    var engine: Engine
    var volume: DiskVolume
    private(set) var warnings: [String] = []

    init(limit: UInt64) throws {
      device = try MemoryDevice(byteCount: 0, maximumByteCount: 256 * mebibyte)
      var format = FormatOptions()
      format.journalByteCount = 1 << 20
      format.limitByteCount = limit
      try Engine.format(device, format)
      engine = try Engine.open(device, EngineOptions()).engine
      volume = try engine.createVolume(named: "disk", byteCount: 1 << 30, createdSeconds: 0)
    }

    /// Opens it again, closed before or not, with a limit for this opening.
    mutating func reopen(closing: Bool = false, openingLimit: UInt64? = nil) throws {
      if closing { try engine.close() }
      var options = EngineOptions()
      options.limitByteCount = openingLimit
      (engine, warnings) = try Engine.open(device, options)
      volume = try #require(try engine.openVolume(named: "disk"))
    }

    /// Writes pieces of 64 KiB from the beginning on until there is no room, at most `count`; returns whether there was none.
    func fill(upTo count: UInt64 = 2048) throws -> Bool {
      for piece in 0..<count {
        do {
          try [UInt8](repeating: 7, count: 65536).withUnsafeBytes { try volume.write($0, at: piece * 65536) }
        } catch let error as ExtentFSError where error.code == .outOfSpace {
          return true
        }
      }
      return false
    }

    func set(_ limit: UInt64) throws { try engine.setAttributes(StoreAttributes(limitByteCount: limit)) }
  }

  @Test(arguments: [false, true])
  func `stays with the store, and the smaller one holds of it and that of an opening`(_ isClosed: Bool) throws {
    var store = try Fixture(limit: 8 * Self.mebibyte)
    try store.reopen(closing: isClosed)
    #expect(store.engine.usage.limitByteCount == 8 * Self.mebibyte)
    #expect(store.engine.usage.featureNames == ["snapshots", "limit"])
    #expect(try store.fill())
    #expect(store.device.byteCount <= 8 * Self.mebibyte && store.device.byteCount > 6 * Self.mebibyte)
    try store.reopen(closing: isClosed, openingLimit: 32 * Self.mebibyte)
    #expect(try store.fill())
    #expect(store.device.byteCount <= 8 * Self.mebibyte)
    try store.set(64 * Self.mebibyte)
    #expect(try store.fill())
    #expect(store.device.byteCount <= 32 * Self.mebibyte && store.device.byteCount > 28 * Self.mebibyte)
    #expect(store.engine.usage.limitByteCount == 64 * Self.mebibyte)
    #expect(try StoreCheck.findings(on: store.device) == [])
  }

  @Test func `is changed while the store is full, and while it is in use`() throws {
    var store = try Fixture(limit: 4 * Self.mebibyte)
    #expect(try store.fill())
    try store.set(12 * Self.mebibyte)
    #expect(try store.fill())
    #expect(store.device.byteCount <= 12 * Self.mebibyte && store.device.byteCount > 10 * Self.mebibyte)
    // Less than there is: it stays as long as it is, and what is there can be overwritten and read.
    let byteCount = store.device.byteCount
    try store.set(2 * Self.mebibyte)
    #expect(try store.fill())
    #expect(store.device.byteCount == byteCount)
    try store.reopen()
    #expect(store.engine.usage.limitByteCount == 2 * Self.mebibyte && store.device.byteCount == byteCount)
    try store.set(0)
    #expect(store.engine.usage.limitByteCount == nil && store.engine.usage.featureNames == ["snapshots"])
    #expect(try !store.fill(upTo: 512))
    #expect(store.device.byteCount > 32 * Self.mebibyte)
    try store.reopen(closing: true)
    #expect(store.engine.usage.limitByteCount == nil)
    #expect(try StoreCheck.findings(on: store.device) == [])
  }

  @Test(arguments: [false, true])
  func `counts what was promised before there was one`(_ isMerged: Bool) throws {
    let store = try Fixture(limit: 0)
    try store.volume.zero(in: 0..<8 * Self.mebibyte, keepsSpace: true)
    if isMerged { try store.engine.checkpoint() }
    try store.set(16 * Self.mebibyte)
    // Others may have what is not promised, and no more.
    for piece in 128..<UInt64(2048) {
      do {
        try [UInt8](repeating: 7, count: 65536).withUnsafeBytes { try store.volume.write($0, at: piece * 65536) }
      } catch let error as ExtentFSError where error.code == .outOfSpace { break }
    }
    for piece in 0..<UInt64(128) {
      try [UInt8](repeating: 8, count: 65536).withUnsafeBytes { try store.volume.write($0, at: piece * 65536) }
    }
    #expect(store.device.byteCount <= 16 * Self.mebibyte)
  }

  @Test func `that an older program has lost is told`() throws {
    var store = try Fixture(limit: 8 * Self.mebibyte)
    #expect(store.warnings.isEmpty)
    try store.engine.close()
    for slot in 0..<2 {
      let place = StoreGeometry.superblockOffset(ofSlot: slot)
      var bytes = [UInt8](repeating: 0, count: 4096)
      try bytes.withUnsafeMutableBytes { try store.device.read(into: $0, at: place) }
      var superblock = try Superblock(decoding: bytes.span.bytes)
      // What it does not know keeps its bit and its name, and what is zero to it becomes so.
      superblock.setLimit(0)
      superblock.add(.limit)
      bytes = encoded(4096) { superblock.encode(into: &$0) }
      try bytes.withUnsafeBytes { try store.device.write($0, at: place) }
    }
    try store.reopen()
    #expect(store.warnings.count == 1 && store.warnings.first?.contains("limit") == true, "\(store.warnings)")
    #expect(try !store.fill(upTo: 512))
    try store.set(0)
    try store.reopen()
    #expect(store.warnings.isEmpty)
  }
}
