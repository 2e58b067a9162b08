import Bytes
import Checksums
import Devices
import ExtentFS
import LacunaTestSupport

/// Where the checksum of each metadata block of a store is, so that it can be made right again.
struct Seals: Sendable {
  struct Block: Sendable {
    var block: UInt64
    var kind: String
    /// Where its checksum is: once for each that leads to it.
    var places: [Place]

    /// Where its checksum is, in bytes from the device's start.
    var checksumPlace: UInt64 { places[0].offset }
  }

  struct Place: Sendable {
    /// In bytes from the device's start.
    var offset: UInt64
    /// The block that it is in; nil for the superblock.
    var parent: Int?
  }

  private(set) var blocks: [Block] = []
  /// The blocks of nodes, by their numbers.
  private var indices: [UInt64: Int] = [:]
  let superblockOffset: UInt64
  let superblock: Superblock
  private let image: MediumImage
  private let nodes: NodeCache

  init(_ image: MediumImage) throws {
    self.image = image
    let slots = try (0..<2).map { slot in
      let start = StoreGeometry.superblockOffset(ofSlot: slot)
      return (start, try Superblock(decoding: image.bytes(start..<start + 4096).span.bytes))
    }
    let newest = slots[0].1.generation > slots[1].1.generation ? slots[0] : slots[1]
    (superblockOffset, superblock) = newest
    nodes = NodeCache(
      device: CrashDevice(image, records: false), blockSize: superblock.geometry.blockSize, byteLimit: 1 << 20)
    try add(superblock.names, .names, at: superblockOffset + 184, parent: nil)
    try add(superblock.inodes, .inodes, at: superblockOffset + 152, parent: nil)
    try add(superblock.space, .space, at: superblockOffset + 216, parent: nil)
    try add(superblock.shared, .shared, at: superblockOffset + 248, parent: nil)
  }

  private mutating func add(
    _ root: TreeRoot, _ kind: NodeKind, owner: UInt64 = 0, at place: UInt64, parent: Int?
  ) throws {
    if !root.isEmpty { try add(try nodes.root(root, kind: kind, owner: owner), at: place + 16, parent: parent) }
  }

  private mutating func add(_ node: Node, at place: UInt64, parent: Int?) throws {
    let place = Place(offset: place, parent: parent)
    if let known = indices[node.pointer.block] { return blocks[known].places.append(place) }
    blocks.append(Block(block: node.pointer.block, kind: "\(node.kind) \(node.level)", places: [place]))
    let index = blocks.count - 1
    indices[node.pointer.block] = index
    let entryByteCount = UInt64(8 + (node.level == 0 ? node.kind.valueByteCount : BlockPointer.encodedByteCount))
    for entry in 0..<node.count {
      let place = node.pointer.block * 1024 + 64 + UInt64(entry) * entryByteCount + 8
      if node.level > 0 {
        try add(try nodes.child(of: node, at: entry, upper: nil).node, at: place + 16, parent: index)
      } else if node.kind == .inodes {
        let record = try node.withValue(at: entry) { try InodeRecord(decoding: $0, at: 0) }
        try add(record.extents, .extents, owner: node.key(at: entry), at: place + 32, parent: index)
      } else if node.kind == .space {
        let record = try node.withValue(at: entry) { try GroupRecord(decoding: $0, at: 0) }
        add(record, ofGroup: node.key(at: entry), at: place, parent: index)
      }
    }
  }

  private mutating func add(_ record: GroupRecord, ofGroup group: UInt64, at place: UInt64, parent: Int) {
    let geometry = superblock.geometry
    blocks.append(
      Block(
        block: geometry.bitmapBlock(ofGroup: group, slot: record.bitmapSlot), kind: "bitmap",
        places: [Place(offset: place + 4, parent: parent)]))
    for page in 0..<StoreGeometry.checksumBlocksPerGroup where record.checksumPresent >> UInt32(page) & 1 == 1 {
      let slot = Int(record.checksumSlots >> UInt32(page) & 1)
      blocks.append(
        Block(
          block: geometry.checksumBlock(ofGroup: group, index: page, slot: slot), kind: "checksums",
          places: [Place(offset: place + 24 + 4 * UInt64(page), parent: parent)]))
    }
  }

  /// The records of all volumes.
  func inodes() throws -> [InodeRecord] {
    var all: [InodeRecord] = []
    try TreeReader(cache: nodes, root: superblock.inodes, kind: .inodes).forEach { entry throws(ExtentFSError) in
      all.append(try entry.withValue { value throws(ExtentFSError) in try InodeRecord(decoding: value, at: 0) })
      return true
    }
    return all
  }

  /// Makes the checksums right from block `index` up to the superblock.
  func seal(_ device: CrashDevice, _ index: Int) throws {
    let block = blocks[index]
    let bytes = device.image.bytes(block.block * 1024..<block.block * 1024 + 1024)
    let sum = bytes.withUnsafeBytes { MetadataChecksum.checksum($0, block: block.block) }
    for place in block.places { try device.put(sum, at: place.offset) }
    for parent in Set(block.places.compactMap(\.parent)) { try seal(device, parent) }
    try sealSuperblock(device)
  }

  func sealSuperblock(_ device: CrashDevice) throws {
    var bytes = device.image.bytes(superblockOffset..<superblockOffset + 4096)
    bytes.replaceSubrange(12..<16, with: [0, 0, 0, 0])
    let sum = bytes.withUnsafeBytes { CRC32C.checksum($0) }
    try device.put(sum, at: superblockOffset + 12)
  }

  /// The records of the journal that belong to the newest epoch.
  func records(_ image: MediumImage) -> [Range<UInt64>] {
    let ring = image.bytes(StoreGeometry.journalOffset..<StoreGeometry.journalOffset + 65536)
    var found: [Range<UInt64>] = []
    ring.withUnsafeBytes { bytes in
      for offset in stride(from: 0, to: bytes.count - 48, by: 8) {
        func number(_ place: Int) -> UInt64 { bytes.loadUnaligned(fromByteOffset: offset + place, as: UInt64.self) }
        let count = Int(number(0) >> 32)
        guard number(8) == superblock.uuid.tag, number(16) == superblock.journalEpoch,
          number(24) >= superblock.journalTailSequence, count >= 48, offset + count <= bytes.count
        else { continue }
        let start = StoreGeometry.journalOffset + UInt64(offset)
        found.append(start..<start + UInt64(count))
      }
    }
    return found
  }
}
