/// The store as a whole. Counts of bytes are whole blocks.
public struct StoreInfo: Codable, Sendable, Hashable {
  /// The absolute path of its file or block device.
  public var path: String
  /// Which store it is: five groups of hexadecimal digits.
  public var uuid: String
  /// The version of the library that answers.
  public var version: String
  /// The version of the calls, ``ControlProtocol/version``.
  public var protocolVersion: Int
  /// Bytes in a block.
  public var blockSize: UInt64
  /// Bytes in the journal.
  public var journalSize: UInt64
  /// The length of the file or device in bytes.
  public var size: UInt64
  /// Bytes in use, data and metadata.
  public var used: UInt64
  /// Bytes that can be written before the device is full, as far as one knows: without a limit, what is free in the file as
  /// it is now.
  public var free: UInt64
  /// The length in bytes that the file does not grow beyond; nil where only the host sets a limit. The smaller one of the store's
  /// own, and of that which the server was started with.
  public var limit: UInt64?
  /// The store's own limit, which stays with it; nil where it has none.
  public var storedLimit: UInt64?
  /// When the store was made.
  public var created: UInt64
  /// How many checkpoints there were.
  public var generation: UInt64
  /// Names of the features that the store has.
  public var features: [String]
  public var volumes: UInt64
  public var snapshots: UInt64
  public var throwaways: UInt64
  /// Volumes that were deleted and have not given all their space back.
  public var deleted: UInt64
  /// The volume that the empty export name stands for.
  public var defaultVolume: String?
  /// The process that serves the store; nil where the caller's own process has opened it.
  public var pid: Int32?
  /// Whether writes to it are refused.
  public var readOnly: Bool
  /// What was found since it was opened that cannot be read, and what that means; nil where nothing was. ``CheckStore`` looks for
  /// all there is.
  public var damage: [Damage]?

  /// One part of a store that cannot be read.
  public struct Damage: Codable, Sendable, Hashable {
    /// Which part: `volume 'vm1'`, `group 3`.
    public var part: String
    /// What is wrong with it, and what that means.
    public var text: String
    /// Whether it is a part of the catalog, so that volumes or snapshots may be missing in lists. Nil from a server that does not
    /// say.
    public var inCatalog: Bool?
  }
}

/// What a check found.
public struct CheckResult: Codable, Sendable, Hashable {
  /// What is wrong; empty where nothing is.
  public var findings: [Finding]
  /// How many volumes and snapshots were looked at.
  public var volumes: UInt64
  /// How many blocks in use were met.
  public var blocks: UInt64
  /// What the trees say of space, to compare with ``StoreInfo``.
  public var accounts: Accounts
  /// What is not wrong with the store, and could be better: names that new volumes could not have, and where the store is. One line
  /// each; nil where there is nothing to say.
  public var notes: [String]?

  /// One thing that is wrong.
  public struct Finding: Codable, Sendable, Hashable {
    /// What is wrong, in one word for programs; nil from a server that does not say.
    public var kind: Kind?
    /// Where: the path to it, such as `volume 'vm1' (inode 1) > block 4711`; empty where it is the store as a whole.
    public var path: String
    /// What is wrong.
    public var text: String

    /// One of the words in docs/control.md, or one that a newer server has besides.
    public struct Kind: RawRepresentable, Codable, Sendable, Hashable {
      public var rawValue: String

      public init(rawValue: String) { self.rawValue = rawValue }

      /// A slot holds no valid superblock.
      public static let superblock = Kind(rawValue: "superblock")
    }
  }

  /// Sums over the store in bytes: `nodes + exclusive + shared + fixed` is what is in use.
  public struct Accounts: Codable, Sendable, Hashable {
    /// In use by nodes of trees.
    public var nodes: UInt64
    /// Data that one volume or snapshot has.
    public var exclusive: UInt64
    /// Data that several have, each block counted once.
    public var shared: UInt64
    /// Taken by superblocks, journal, bitmaps and checksums.
    public var fixed: UInt64
  }
}

/// One block, decoded.
public struct BlockDump: Codable, Sendable, Hashable {
  public var block: UInt64
  /// What it is: `superblock`, `inodes node`, `data`, `free` and the like.
  public var kind: String
  /// All of it for people, in lines.
  public var text: String
  /// Its fields in the order of their offsets.
  public var fields: [Field]

  /// One field of a block.
  public struct Field: Codable, Sendable, Hashable {
    public var name: String
    public var value: String
  }
}

/// What deleted volumes have not freed yet.
public struct Deletions: Codable, Sendable, Hashable {
  /// How many such volumes there are.
  public var volumes: UInt64
  /// The bytes that they still map, shared ones included.
  public var mappedLeft: UInt64
  /// How many of them keep what they have, since their trees cannot be read; nil from a server that does not say.
  public var damaged: UInt64?
}

/// What the host got back.
public struct TrimResult: Codable, Sendable, Hashable {
  /// The bytes that it held; where it does not tell what it holds, as a block device does not, all that are free.
  public var bytes: UInt64
  /// Whether it tells.
  public var exact: Bool
}
