internal import BlockStores
internal import Bytes

/// What a list of volumes says of one.
public struct VolumeDescription: Sendable, Hashable {
  /// The volume's name, by which clients ask for it.
  public var name: String
  /// Its size in bytes.
  public var byteCount: UInt64
  /// Whether nobody can write to it.
  public var isReadOnly: Bool
  /// One line about it, for people.
  public var summary: String
}

/// An open store: the volumes in it. Safe to use from any thread.
public final class Store: Sendable {
  private let volume: Volume

  /// Opens or makes what `options` ask for.
  ///
  /// - Throws: `.invalidParameter` where they ask for nothing, or for what cannot be; `.deviceFailed` or `.outOfSpace` where
  ///   the system has no room for it.
  public init(_ options: StoreOptions) throws(LacunaError) {
    guard let byteCount = options.memoryByteCount else {
      throw LacunaError(.invalidParameter, "no size of a disk in memory was given")
    }
    guard byteCount > 0, byteCount <= UInt64(Int64.max) else {
      throw LacunaError(.invalidParameter, "a disk has from 1 to 2^63 - 1 bytes, not \(byteCount)")
    }
    let description = VolumeDescription(
      name: "memory", byteCount: byteCount, isReadOnly: false,
      summary: "\(byteCount) bytes in memory, engine \(options.engine.rawValue)")
    do {
      let contents = try VolumeContents(inMemory: byteCount, engine: options.engine)
      volume = Volume(description, contents)
    } catch {
      throw LacunaError(error, volume: description.name)
    }
  }

  /// The volumes that there are, by name.
  public var volumes: [VolumeDescription] { [volume.description] }

  /// The name of the volume that the empty name stands for.
  public var defaultVolumeName: String { volume.description.name }

  /// The volume `name`; the default one for the empty name.
  ///
  /// - Throws: `.noSuchVolume`.
  public func openVolume(named name: String) throws(LacunaError) -> Volume {
    guard name.isEmpty || name == volume.description.name else {
      throw LacunaError(.noSuchVolume, "there is no volume '\(name.prefix(64))'; '\(volume.description.name)' is there")
    }
    return volume
  }
}

extension VolumeContents {
  /// The most bytes that blocks in memory may take: what a process has addresses for, with room to spare.
  private static let memoryByteCountMax: UInt64 = 1 << 46

  /// Blocks beyond the volume's own: room for writes that have not replaced the old blocks yet.
  private static let spareBlockCount: UInt64 = 1 << 18

  fileprivate init(inMemory byteCount: UInt64, engine: MemoryEngine) throws(StoreError) {
    let inode = Inode(rawValue: 1)
    let blockSize = BlockSize.standard
    // Twice the volume, so that each block, also one of reserved zeroes, finds room for its next contents.
    let wanted = 2 * blockSize.blocks(toHold: byteCount) + Self.spareBlockCount
    let blockCount = min(wanted, Self.memoryByteCountMax >> blockSize.shift)
    switch engine {
    case .extent:
      self = .extents(
        try ExtentFile(
          MemoryExtentStore(blockSize: blockSize, blockCount: blockCount), inode: inode,
          overwritesInPlace: true))
    case .chain:
      self = .chain(
        try BlockChainFile(
          MemoryBlockChainStore(blockSize: blockSize, blockCount: blockCount), inode: inode,
          overwritesInPlace: true))
    case .bytes:
      self = .bytes(MemoryByteStore(), inode)
    }
    try truncate(to: byteCount)
  }
}
