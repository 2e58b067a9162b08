/// What a store has done since it was opened. Counters only grow; they begin at 0 with each opening.
public struct StoreStatistics: Codable, Sendable, Hashable {
  /// Seconds since the store was opened.
  public var seconds: Double
  /// Connections to volumes that are open now.
  public var clients: Int
  public var reads: Operations
  public var writes: Operations
  /// Requests to zero; bytes are those of the ranges.
  public var zeroes: Operations
  public var trims: Operations
  /// Flushes, those included that a write brought with it (FUA).
  public var flushes: Operations
  public var commits: Commits
  public var checkpoints: Checkpoints
  public var nodeCache: Cache
  public var checksumCache: Cache
  public var journal: Journal
  public var device: Device
  public var space: Space

  /// Bytes written to the device for each byte that clients wrote; nil before they wrote any.
  public var writeAmplification: Double? {
    writes.bytes == 0 ? nil : Double(device.bytesWritten) / Double(writes.bytes)
  }

  /// Requests of one kind.
  public struct Operations: Codable, Sendable, Hashable {
    /// How many there were, failed ones included.
    public var count: UInt64
    /// The bytes that they were about.
    public var bytes: UInt64
    /// How many failed.
    public var errors: UInt64
    public var latency: Latency

    public init(count: UInt64 = 0, bytes: UInt64 = 0, errors: UInt64 = 0, latency: Latency = Latency()) {
      self.count = count
      self.bytes = bytes
      self.errors = errors
      self.latency = latency
    }
  }

  /// How long requests took.
  public struct Latency: Codable, Sendable, Hashable {
    /// All of them together, in seconds.
    public var seconds: Double
    /// How many took how long: entry `i` counts those that took less than 2^i microseconds, and not less than entry `i - 1`
    /// says; the last one all that took longer. There are ``bucketCount`` entries.
    public var buckets: [UInt64]

    /// The number of buckets: the last but one ends at 2^22 µs, some four seconds.
    public static let bucketCount = 24

    public init(seconds: Double = 0, buckets: [UInt64] = Array(repeating: 0, count: bucketCount)) {
      self.seconds = seconds
      self.buckets = buckets
    }
  }

  /// Syncs of the device that made flushes durable.
  public struct Commits: Codable, Sendable, Hashable {
    /// How many syncs there were.
    public var count: UInt64
    /// How many flushes they answered; divided by `count`, the size of a group.
    public var flushes: UInt64

    public init(count: UInt64 = 0, flushes: UInt64 = 0) {
      self.count = count
      self.flushes = flushes
    }
  }

  /// Checkpoints, in seconds.
  public struct Checkpoints: Codable, Sendable, Hashable {
    public var count: UInt64
    /// All of them together.
    public var seconds: Double
    public var lastSeconds: Double
    public var longestSeconds: Double

    public init(count: UInt64 = 0, seconds: Double = 0, lastSeconds: Double = 0, longestSeconds: Double = 0) {
      self.count = count
      self.seconds = seconds
      self.lastSeconds = lastSeconds
      self.longestSeconds = longestSeconds
    }
  }

  /// A cache of metadata.
  public struct Cache: Codable, Sendable, Hashable {
    public var hits: UInt64
    public var misses: UInt64
    /// The bytes that it holds.
    public var bytes: UInt64

    public init(hits: UInt64 = 0, misses: UInt64 = 0, bytes: UInt64 = 0) {
      self.hits = hits
      self.misses = misses
      self.bytes = bytes
    }
  }

  /// The journal, in bytes.
  public struct Journal: Codable, Sendable, Hashable {
    public var size: UInt64
    /// What waits for a checkpoint now.
    public var used: UInt64
    /// What was ever written to it.
    public var written: UInt64

    public init(size: UInt64 = 0, used: UInt64 = 0, written: UInt64 = 0) {
      self.size = size
      self.used = used
      self.written = written
    }
  }

  /// Calls on the file or block device.
  public struct Device: Codable, Sendable, Hashable {
    public var bytesRead: UInt64
    /// The journal's bytes included.
    public var bytesWritten: UInt64
    public var syncs: UInt64

    public init(bytesRead: UInt64 = 0, bytesWritten: UInt64 = 0, syncs: UInt64 = 0) {
      self.bytesRead = bytesRead
      self.bytesWritten = bytesWritten
      self.syncs = syncs
    }
  }

  /// Space now, in bytes: as in ``StoreInfo``.
  public struct Space: Codable, Sendable, Hashable {
    public var size: UInt64
    public var used: UInt64
    public var free: UInt64

    public init(size: UInt64 = 0, used: UInt64 = 0, free: UInt64 = 0) {
      self.size = size
      self.used = used
      self.free = free
    }
  }

  /// Makes what a store that has done nothing would say.
  public init() {
    seconds = 0
    clients = 0
    reads = Operations()
    writes = Operations()
    zeroes = Operations()
    trims = Operations()
    flushes = Operations()
    commits = Commits()
    checkpoints = Checkpoints()
    nodeCache = Cache()
    checksumCache = Cache()
    journal = Journal()
    device = Device()
    space = Space()
  }
}
