/// What a store has done since it was opened. Counters only grow; they begin at 0 with each opening.
public struct StoreStatistics: Codable, Sendable, Hashable {
  /// Seconds since the store was opened.
  public var seconds: Double = 0
  /// Connections to volumes that are open now.
  public var clients: Int = 0
  public var reads = Operations()
  public var writes = Operations()
  /// Requests to zero; bytes are those of the ranges.
  public var zeroes = Operations()
  public var trims = Operations()
  /// Requests to flush. What another request brings with it (FUA) is in ``Commits/flushes`` alone.
  public var flushes = Operations()
  public var commits = Commits()
  public var checkpoints = Checkpoints()
  public var nodeCache = Cache()
  public var checksumCache = Cache()
  public var journal = Journal()
  public var device = Device()
  public var space = Space()
  /// How many parts of the store were found to be unreadable; ``StoreInfo/damage`` names them. Nil from a server that does not say.
  public var damagedParts: Int?

  /// Makes what a store that has done nothing would say.
  public init() {}

  /// Bytes written to the device for each byte that clients wrote; nil before they wrote any.
  public var writeAmplification: Double? {
    writes.bytes == 0 ? nil : Double(device.bytesWritten) / Double(writes.bytes)
  }

  /// Requests of one kind.
  public struct Operations: Codable, Sendable, Hashable {
    /// How many there were, failed ones included.
    public var count: UInt64 = 0
    /// The bytes that they were about.
    public var bytes: UInt64 = 0
    /// How many failed.
    public var errors: UInt64 = 0
    public var latency = Latency()
  }

  /// How long requests took.
  public struct Latency: Codable, Sendable, Hashable {
    /// All of them together, in seconds.
    public var seconds: Double = 0
    /// How many took how long: entry `i` counts those that took less than 2^i microseconds, and not less than entry `i - 1`
    /// says; the last one all that took longer. There are ``bucketCount`` entries.
    public var buckets = [UInt64](repeating: 0, count: bucketCount)

    /// The number of buckets: the last but one ends at 2^22 µs, some four seconds.
    public static let bucketCount = 24
  }

  /// Syncs of the device that made flushes durable.
  public struct Commits: Codable, Sendable, Hashable {
    /// How many syncs there were.
    public var count: UInt64 = 0
    /// How many flushes they answered, those included that a write brought with it (FUA); divided by `count`, the size of a
    /// group.
    public var flushes: UInt64 = 0
  }

  /// Checkpoints, in seconds.
  public struct Checkpoints: Codable, Sendable, Hashable {
    public var count: UInt64 = 0
    /// All of them together.
    public var seconds: Double = 0
    public var lastSeconds: Double = 0
    public var longestSeconds: Double = 0
  }

  /// A cache of metadata.
  public struct Cache: Codable, Sendable, Hashable {
    public var hits: UInt64 = 0
    public var misses: UInt64 = 0
    /// The bytes that it holds.
    public var bytes: UInt64 = 0
  }

  /// The journal, in bytes.
  public struct Journal: Codable, Sendable, Hashable {
    public var size: UInt64 = 0
    /// What waits for a checkpoint now.
    public var used: UInt64 = 0
    /// What was ever written to it.
    public var written: UInt64 = 0
  }

  /// Calls on the file or block device.
  public struct Device: Codable, Sendable, Hashable {
    public var bytesRead: UInt64 = 0
    /// The journal's bytes included.
    public var bytesWritten: UInt64 = 0
    public var syncs: UInt64 = 0
  }

  /// Space now, in bytes: as in ``StoreInfo``.
  public struct Space: Codable, Sendable, Hashable {
    public var size: UInt64 = 0
    public var used: UInt64 = 0
    public var free: UInt64 = 0
  }
}
