public import Logging

/// How a disk in memory is held: the three designs of the mission's document, to be compared on one workload.
public enum MemoryEngine: String, CaseIterable, Sendable {
  case extent, chain, bytes

  /// One line for help texts.
  public var summary: String {
    switch self {
    case .extent: "contiguous runs of blocks, holes"
    case .chain: "single blocks of 4 KiB in a chain, holes"
    case .bytes: "one array of bytes, no holes to be seen"
    }
  }
}

/// What to open or to make: a disk in memory, or a store in a file or on a block device.
public struct StoreOptions: Sendable {
  /// The size of a disk in memory, in bytes: from 1 to 2^63 - 1.
  public var memoryByteCount: UInt64?
  /// How the disk in memory is held.
  public var engine = MemoryEngine.extent

  /// The file or block device that holds the store.
  public var path: String?
  /// The export that the empty name stands for while the store is open; nil for the store's default volume. As a volume's
  /// name, what is made where `byteCount` is given; nil for `defaultVolumeName`.
  public var volumeName: String?
  /// Whether the volume is looked for, and made where it is not there. False to open a store, or to make an empty one, without
  /// a thought for its volumes; `volumeName` and `byteCount` then mean nothing.
  public var makesVolume = true
  /// Whether to wait some seconds for a store that is in use, where that may be over soon. False to be told at once, and not by whom.
  public var waitsForLock = true
  /// Whether to write to a store whose newest superblock may be lost, by going on from the one before; see `lacuna recover`.
  public var acceptsOlderSuperblock = false
  /// Whether a store that is there is opened for reading only, so that not a byte of it changes; nothing is made then.
  public var opensReadOnly = false
  /// Whether a store that is opened for reading only looks as it would if it were opened for writing: with what its journal says
  /// merged, in memory. False to see the bytes that the file has.
  package var mergesJournal = true
  /// The volume's size in bytes, from 1 to 2^63 - 1: what a volume that is not there yet gets, and what one that is there
  /// must have.
  public var byteCount: UInt64?
  /// What the volume is to be besides its size where it is made: nobody can write to it; the most bytes that it may map, and the
  /// bytes that are reserved for it, nil or 0 for none.
  public var volumeIsReadOnly = false
  public var quotaByteCount: UInt64?
  public var reservationByteCount: UInt64?
  /// Whether a store or a volume that is not there is made.
  public var createsMissing = true
  /// Whether a new store takes the place of whatever a block device holds, be that another store. False makes one only on a device
  /// that is blank. Means nothing for files, in whose place none is ever made.
  public var replacesContents = false
  /// The size of a block in bytes, a power of two from 4096 to 65536: what a new store gets, and what one that is there must
  /// have.
  public var blockByteCount: UInt64?
  /// The length of the journal in bytes, a multiple of 65536: what a new store gets, and what one that is there must have.
  public var journalByteCount: UInt64?
  /// The length in bytes that the store's file does not grow beyond while it is open; nil for the store's own limit alone. Where
  /// there are both, the smaller one holds.
  public var limitByteCount: UInt64?
  /// The limit that a new store has for itself, in bytes; nil for none. ``SetStore`` changes it.
  public var storedLimitByteCount: UInt64?
  /// Memory for caches, in bytes.
  public var cacheByteCount: UInt64 = 64 << 20
  /// The longest time between two checkpoints while there is something to merge, in seconds.
  public var checkpointSeconds: UInt32 = 60
  /// Whether blocks of zeroes that are written become holes.
  public var detectsZeroes = true

  /// Gets what no caller is told of an open store (docs/log.md): on any thread, with no lock held. It must not call the store.
  public var logger = Logger(label: "lacuna", factory: { _ in SwiftLogNoOpLogHandler() })

  /// Begins to end the process that serves the store, and returns before it ends, with the number of the last process to end; nil
  /// where nothing is served. On any thread.
  package var endServing: (@Sendable () throws(LacunaError) -> Int32)?

  /// The name of the volume that a new store gets where none is given.
  public static let defaultVolumeName = "disk"
  /// The block sizes that a new store can have, in bytes.
  public static let blockByteCounts: [UInt64] = [4096, 8192, 16_384, 32_768, 65_536]
  /// The block size of a new store where none is given, in bytes.
  public static let defaultBlockByteCount: UInt64 = 4096
  /// The length of a new store's journal where none is given, in bytes.
  public static let defaultJournalByteCount: UInt64 = 16 << 20

  /// The defaults, which name nothing to open yet.
  public init() {}
}
