internal import Bytes
internal import Checksums

/// The start of everything: which store this is, and where its trees and its journal begin.
///
/// Two slots are written in turn; the valid one with the greater generation counts.
///
/// ```
///   0    8  magic "LACUNA\r\n"
///   8  u32  version               1
///  12  u32  checksum              CRC32C of the 4096 bytes with this field zero
///  16  u64  compatible features   may be unknown
///  24  u64  readOnlyCompatible    unknown ones allow reading alone
///  32  u64  incompatible          unknown ones allow nothing
///  40   16  UUID
///  56  u32  blockSize             in bytes
///  60  u32  zero
///  64  u64  generation
///  72  u64  blockCount            of the device, as far as the store knows of it
///  80  u64  journalByteCount
///  88  u64  journalTailOffset     in bytes from the ring's start
///  96  u64  journalTailSequence   the next one expected there
/// 104  u64  journalEpoch
/// 112  u64  nextInode
/// 120  u64  defaultInode
/// 128  u64  usedBlockCount
/// 136  u64  groupCount
/// 144  u64  createdSeconds        since 1970
/// 152   32  TreeRoot of inodes
/// 184   32  TreeRoot of names
/// 216   32  TreeRoot of space
/// 248   32  TreeRoot of shared runs
/// 280       FeatureTable, then zero up to 4032
/// 4032 u64  nodeBlockCount        this one and those below: zero without the feature "snapshots"
/// 4040 u64  reservedBlockCount
/// 4048 u64  transientCount
/// 4056 u64  limitByteCount        zero without the feature "limit"
/// 4064      zero
/// 4088 u64  generation            once more, so that one that was written in part shows; 0 from programs that do not know it
/// ```
package struct Superblock: Sendable, Equatable {
  /// Features that may be unknown.
  package var compatibleFeatures: UInt64 = 0
  /// Features of which unknown ones allow reading alone.
  package var readOnlyCompatibleFeatures: UInt64 = 0
  /// Features that must be known.
  package var incompatibleFeatures: UInt64 = 0
  /// The names of the features, of all that the store has and whoever made it knew.
  package var featureNames: [StoreFeature] = []
  /// Which store this is.
  package var uuid: StoreUUID
  /// Where everything is.
  package var geometry: StoreGeometry
  /// Of the checkpoint that wrote this superblock; rises by one with each.
  package var generation: UInt64
  /// How many blocks of the device the store knows of.
  package var blockCount: UInt64
  /// Where in the ring the journal's live part begins, in bytes.
  package var journalTailOffset: UInt64 = 0
  /// The sequence number expected there.
  package var journalTailSequence: UInt64 = 1
  /// Told apart from records of other openings.
  package var journalEpoch: UInt64 = 1
  /// The number of the next inode made.
  package var nextInode: UInt64 = 1
  /// The inode that the empty export name means; 0 for none.
  package var defaultInode: UInt64 = 0
  /// How many blocks are in use.
  package var usedBlockCount: UInt64 = 0
  /// How many groups a device of `blockCount` blocks has.
  package var groupCount: UInt64 = 0
  /// When the store was made, in seconds since 1970.
  package var createdSeconds: UInt64 = 0
  /// The tree of inodes.
  package var inodes: TreeRoot = .empty
  /// The tree of names.
  package var names: TreeRoot = .empty
  /// The tree of groups.
  package var space: TreeRoot = .empty
  /// The tree of shared runs.
  package var shared: TreeRoot = .empty
  /// How many of the blocks in use hold nodes, of whichever tree. This and the following two are stored with the feature
  /// "snapshots" alone, and 0 without it.
  package var nodeBlockCount: UInt64 = 0
  /// How many blocks are promised to volumes: the sum of `InodeRecord.promisedBlocks`.
  package var reservedBlockCount: UInt64 = 0
  /// How many inodes are transient: they are deleted or throwaway.
  package var transientCount: UInt64 = 0
  /// The length in bytes that the store's file does not grow beyond; 0 for none, and without the feature "limit". A file may be
  /// longer, which only means that it does not grow.
  package private(set) var limitByteCount: UInt64 = 0

  /// The size of an encoded superblock, in bytes.
  package static let encodedByteCount = StoreGeometry.superblockByteCount
  /// The version of the format that this code writes, and the newest that it reads.
  package static let version: UInt32 = 1
  /// "LACUNA\r\n" as a little-endian integer.
  package static let magic: UInt64 = 0x0A0D_414E_5543_414C
  /// The features that this code knows, of each class.
  package static let knownReadOnlyCompatibleFeatures: UInt64 = 0
  /// The features that this code knows.
  package static let knownIncompatibleFeatures: UInt64 = 1 << UInt64(StoreFeature.snapshots.bit)

  private static let countsOffset = 4032
  private static let limitOffset = 4056
  static let generationOffset = 64
  static let closingGenerationOffset = 4088
  /// What is the same in all superblocks of a store.
  static let constantRanges = [0..<12, 40..<64, 80..<88, 144..<152, 4064..<closingGenerationOffset]
  /// What is the same as long as the store gets no new feature.
  static let featureRanges = [16..<40, 280..<countsOffset]
  /// What is the same even then, unless the store has many features.
  static let laterFeatureRanges = [512..<countsOffset]

  /// The superblock of a store with nothing in it.
  package init(uuid: StoreUUID, geometry: StoreGeometry, generation: UInt64, blockCount: UInt64) {
    self.uuid = uuid
    self.geometry = geometry
    self.generation = generation
    self.blockCount = blockCount
  }

  /// The features that allow this program reading alone, as a list for people; nil where there are none.
  package var featuresAgainstWriting: String? {
    let unknown = readOnlyCompatibleFeatures & ~Self.knownReadOnlyCompatibleFeatures
    return unknown == 0 ? nil : FeatureTable.describe(unknown, .readOnlyCompatible, featureNames)
  }

  /// Whether the store has `feature`, whatever it is called there.
  package func has(_ feature: StoreFeature) -> Bool {
    let word =
      switch feature.kind {
      case .compatible: compatibleFeatures
      case .readOnlyCompatible: readOnlyCompatibleFeatures
      case .incompatible: incompatibleFeatures
      }
    return word >> UInt64(feature.bit) & 1 == 1
  }

  /// Says that the store has `feature` from now on, and what it is called, if there is room for one more name.
  package mutating func add(_ feature: StoreFeature) {
    let mask: UInt64 = 1 << UInt64(feature.bit)
    switch feature.kind {
    case .compatible: compatibleFeatures |= mask
    case .readOnlyCompatible: readOnlyCompatibleFeatures |= mask
    case .incompatible: incompatibleFeatures |= mask
    }
    featureNames.removeAll { $0.kind == feature.kind && $0.bit == feature.bit }
    if featureNames.count < FeatureTable.maximumCount { featureNames.append(feature) }
  }

  /// Sets the length in bytes that the store's file does not grow beyond; 0 for none.
  package mutating func setLimit(_ byteCount: UInt64) {
    limitByteCount = byteCount
    if byteCount > 0 { add(.limit) } else { remove(.limit) }
  }

  /// Whether the store had a limit, and a program that does not know limits has written to it since.
  package var hasLostLimit: Bool { has(.limit) && limitByteCount == 0 }

  /// Says that the store no longer has `feature`.
  private mutating func remove(_ feature: StoreFeature) {
    let mask: UInt64 = 1 << UInt64(feature.bit)
    switch feature.kind {
    case .compatible: compatibleFeatures &= ~mask
    case .readOnlyCompatible: readOnlyCompatibleFeatures &= ~mask
    case .incompatible: incompatibleFeatures &= ~mask
    }
    featureNames.removeAll { $0.kind == feature.kind && $0.bit == feature.bit }
  }

  /// Decodes the superblock in the first 4096 bytes of `bytes`.
  ///
  /// - Throws: `ExtentFSError` with `notAStore` where the magic is missing or there are too few bytes, `newerFormat`
  ///   for an unknown version or incompatible feature, and `damaged` for a wrong checksum or fields that cannot be.
  package init(decoding bytes: RawSpan) throws(ExtentFSError) {
    guard bytes.byteCount >= Self.encodedByteCount, bytes.uint64(at: 0) == Self.magic else {
      throw ExtentFSError(.notAStore, "there is no Lacuna store here: the first bytes are not its mark")
    }
    guard Self.hasRightChecksum(bytes) else {
      throw ExtentFSError(
        .damaged, "a superblock's checksum is \(bytes.uint32(at: 12)) and should be \(Self.checksum(bytes))")
    }
    try Self.checkFeatures(bytes)
    compatibleFeatures = bytes.uint64(at: 16)
    readOnlyCompatibleFeatures = bytes.uint64(at: 24)
    incompatibleFeatures = bytes.uint64(at: 32)
    featureNames = FeatureTable.decode(bytes)
    uuid = StoreUUID(decoding: bytes, at: 40)
    geometry = try Self.geometry(bytes)
    generation = bytes.uint64(at: Self.generationOffset)
    blockCount = bytes.uint64(at: 72)
    journalTailOffset = bytes.uint64(at: 88)
    journalTailSequence = bytes.uint64(at: 96)
    journalEpoch = bytes.uint64(at: 104)
    nextInode = bytes.uint64(at: 112)
    defaultInode = bytes.uint64(at: 120)
    usedBlockCount = bytes.uint64(at: 128)
    groupCount = bytes.uint64(at: 136)
    createdSeconds = bytes.uint64(at: 144)
    inodes = try TreeRoot(decoding: bytes, at: 152)
    names = try TreeRoot(decoding: bytes, at: 184)
    space = try TreeRoot(decoding: bytes, at: 216)
    shared = try TreeRoot(decoding: bytes, at: 248)
    if has(.snapshots) {
      nodeBlockCount = bytes.uint64(at: Self.countsOffset)
      reservedBlockCount = bytes.uint64(at: Self.countsOffset + 8)
      transientCount = bytes.uint64(at: Self.countsOffset + 16)
    }
    if has(.limit) { limitByteCount = bytes.uint64(at: Self.limitOffset) }
    try checkBounds()
  }

  private static func checkFeatures(_ bytes: RawSpan) throws(ExtentFSError) {
    let version = bytes.uint32(at: 8)
    guard version == Self.version else {
      // Version 0 was never written, and is as unknown as those to come.
      throw ExtentFSError(.newerFormat, "the store has format version \(version); this program knows \(Self.version)")
    }
    let unknown = bytes.uint64(at: 32) & ~knownIncompatibleFeatures
    guard unknown == 0 else {
      let list = FeatureTable.describe(unknown, .incompatible, FeatureTable.decode(bytes))
      throw ExtentFSError(.newerFormat, "the store has features unknown to this program: \(list)")
    }
  }

  private static func geometry(_ bytes: RawSpan) throws(ExtentFSError) -> StoreGeometry {
    let byteCount = bytes.uint32(at: 56)
    guard let blockSize = BlockSize(byteCount: Int(byteCount)) else {
      throw ExtentFSError(.damaged, "a superblock has the block size \(byteCount)")
    }
    do throws(ExtentFSError) {
      return try StoreGeometry(blockSize: blockSize, journalByteCount: bytes.uint64(at: 80))
    } catch {
      throw ExtentFSError(.damaged, "a superblock has an impossible geometry: \(error.facts)")
    }
  }

  private func checkBounds() throws(ExtentFSError) {
    guard blockCount >= geometry.headBlockCount, blockCount <= UInt64(Int64.max) >> geometry.blockSize.shift,
      groupCount <= geometry.groupCount(inDeviceOf: blockCount), usedBlockCount <= blockCount,
      journalTailOffset < geometry.journalByteCount
    else {
      throw ExtentFSError(
        .damaged,
        "a superblock has \(blockCount) blocks, \(usedBlockCount) of them used, \(groupCount) groups, and the journal at \(journalTailOffset)"
      )
    }
    guard nodeBlockCount <= usedBlockCount, reservedBlockCount <= ExtentRecord.blockLimit, transientCount <= nextInode
    else {
      throw ExtentFSError(
        .damaged,
        "a superblock counts \(nodeBlockCount) nodes among \(usedBlockCount) used blocks, \(reservedBlockCount) reserved blocks and \(transientCount) transient inodes below \(nextInode)"
      )
    }
  }

  /// Encodes the superblock into the first 4096 bytes of `bytes`, all of which it sets.
  package func encode(into bytes: inout MutableRawSpan) {
    bytes.zero(0..<Self.encodedByteCount)
    bytes.store(Self.magic, at: 0)
    bytes.store(Self.version, at: 8)
    bytes.store(compatibleFeatures, at: 16)
    bytes.store(readOnlyCompatibleFeatures, at: 24)
    bytes.store(incompatibleFeatures, at: 32)
    uuid.encode(into: &bytes, at: 40)
    bytes.store(UInt32(geometry.blockSize.byteCount), at: 56)
    bytes.store(generation, at: Self.generationOffset)
    bytes.store(blockCount, at: 72)
    bytes.store(geometry.journalByteCount, at: 80)
    bytes.store(journalTailOffset, at: 88)
    bytes.store(journalTailSequence, at: 96)
    bytes.store(journalEpoch, at: 104)
    bytes.store(nextInode, at: 112)
    bytes.store(defaultInode, at: 120)
    bytes.store(usedBlockCount, at: 128)
    bytes.store(groupCount, at: 136)
    bytes.store(createdSeconds, at: 144)
    inodes.encode(into: &bytes, at: 152)
    names.encode(into: &bytes, at: 184)
    space.encode(into: &bytes, at: 216)
    shared.encode(into: &bytes, at: 248)
    FeatureTable.encode(featureNames, into: &bytes)
    if has(.snapshots) {
      bytes.store(nodeBlockCount, at: Self.countsOffset)
      bytes.store(reservedBlockCount, at: Self.countsOffset + 8)
      bytes.store(transientCount, at: Self.countsOffset + 16)
    }
    if has(.limit) { bytes.store(limitByteCount, at: Self.limitOffset) }
    bytes.store(generation, at: Self.closingGenerationOffset)
    bytes.store(Self.checksum(bytes.bytes), at: 12)
  }

  static func hasRightChecksum(_ bytes: RawSpan) -> Bool { bytes.uint32(at: 12) == checksum(bytes) }

  /// The CRC32C of the first 4096 bytes with the checksum field taken as zero.
  static func checksum(_ bytes: RawSpan) -> UInt32 {
    // Safe: both buffers live during their calls, and callers give 4096 bytes or more.
    unsafe bytes.withUnsafeBytes { buffer in
      let before = unsafe CRC32C.checksum(UnsafeRawBufferPointer(rebasing: buffer[0..<12]))
      let field = unsafe withUnsafeBytes(of: UInt32(0)) { unsafe CRC32C.checksum($0, continuing: before) }
      let rest = unsafe UnsafeRawBufferPointer(rebasing: buffer[16..<encodedByteCount])
      return unsafe CRC32C.checksum(rest, continuing: field)
    }
  }
}
