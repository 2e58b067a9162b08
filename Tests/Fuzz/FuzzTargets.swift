import Devices
import ExtentFS
import LacunaTestSupport

/// What a fuzzer's bytes are used for. Whatever they are, nothing traps, and each target's promise holds.
enum FuzzTargets {
  private static let hostile = hostileStore(isSharing: false)
  private static let sharing = hostileStore(isSharing: true)

  private static func hostileStore(isSharing: Bool) -> HostileStore {
    do { return try HostileStore(isSharing: isSharing) } catch { fatalError("no store to change: \(error)") }
  }

  /// Changes of a small store, after which its checksums are right again. The first byte says whether it has snapshots.
  static func store(_ bytes: [UInt8]) throws {
    var input = FuzzInput(bytes)
    let store = input.byte() & 1 == 0 ? hostile : sharing
    let device = store.device()
    while !input.isAtEnd { try input.changeMetadata(of: store, device) }
    try use(device)
  }

  /// The records of a journal, with the right checksums, store, epoch and numbers.
  static func journal(_ bytes: [UInt8]) throws {
    let device = hostile.device()
    var forge = JournalForge(hostile.seals)
    var input = FuzzInput(bytes)
    while !input.isAtEnd {
      let head = input.byte()
      if head & 0x80 != 0 { forge.closeBlock() }
      let kind: UInt8 = [1, 2, 3, 5, 1, 1, 0, head >> 3 & 0xF][Int(head & 7)]
      let durable = head & 0x40 != 0 ? forge.sequence - 1 : input.number()
      let wordCount = kind == 5 ? 0 : kind == 1 ? 4 : 3
      var body: [UInt8] = []
      for _ in 0..<wordCount { withUnsafeBytes(of: input.number().littleEndian) { body += $0 } }
      if kind == 1 { body += input.bytes(4 * (1 + Int(input.byte()) % 64)) }
      if head & 0x3F == 0x3F { body += input.bytes(Int(input.byte())) }
      if !forge.append(kind: kind, durable: durable, body: body) { break }
    }
    try forge.write(to: device)
    try use(device)
  }

  private static func use(_ device: CrashDevice) throws {
    let counted = FaultyDevice(device)
    try HostileStore.use(counted)
    guard counted.counts.bytesRead < 64 << 20 else {
      throw CheckFailure("\(counted.counts.bytesRead) bytes were read of a store of less than 1 MiB")
    }
  }
}

/// A fuzzer's bytes, read from the front; zeroes behind their end.
struct FuzzInput {
  private var rest: ArraySlice<UInt8>

  init(_ bytes: [UInt8]) { rest = bytes[...] }

  var isAtEnd: Bool { rest.isEmpty }

  mutating func byte() -> UInt8 { rest.popFirst() ?? 0 }

  mutating func bytes(_ count: Int) -> [UInt8] {
    let taken = Array(rest.prefix(count))
    rest = rest.dropFirst(count)
    return taken + [UInt8](repeating: 0, count: count - taken.count)
  }

  /// A number: a small one, one of the boundaries, or any.
  mutating func number() -> UInt64 {
    let head = byte()
    switch head >> 6 {
    case 0: return UInt64(head & 0x3F)
    case 1: return UInt64(head & 0x3F) << 8 | UInt64(byte())
    case 2: return HostileStore.boundaries[Int(head & 0x3F) % HostileStore.boundaries.count]
    default: return bytes(8).reduce(0) { $0 << 8 | UInt64($1) }
    }
  }

  /// One change of a metadata block or of the superblock, and the checksums above it.
  mutating func changeMetadata(of store: HostileStore, _ device: CrashDevice) throws {
    let head = byte()
    let index = Int(byte()) % (store.seals.blocks.count + 1)
    guard index < store.seals.blocks.count else {
      let place = store.seals.superblockOffset + UInt64(byte()) % 70 * 4
      try device.put(UInt32(truncatingIfNeeded: number()), at: place)
      return try store.seals.sealSuperblock(device)
    }
    let start = store.seals.blocks[index].block * 1024
    let place = UInt64(byte()) * 4
    switch head % 8 {
    case 0: try device.put(number(), at: start + min(place, 1016))
    case 1: try device.put(device.image.number(at: start + min(place, 1016)) &+ 1, at: start + min(place, 1016))
    case 2: try device.put(UInt32(truncatingIfNeeded: number()), at: start + place)
    case 3: try device.write([byte()], at: start + place + UInt64(head >> 6))
    case 4, 5:
      // Entries and pointers of another block.
      let other = store.seals.blocks[Int(byte()) % store.seals.blocks.count].block * 1024
      let from = UInt64(byte()) * 4
      let count = min(24, 1024 - max(from, place))
      try device.write(device.image.bytes(other + from..<other + from + count), at: start + place)
    case 6:
      try device.put(store.seals.blocks[Int(byte()) % store.seals.blocks.count].block, at: start + min(place, 1016))
    default: try device.put(UInt16(truncatingIfNeeded: number()), at: start + place + UInt64(head >> 7) * 2)
    }
    try store.seals.seal(device, index)
  }
}
