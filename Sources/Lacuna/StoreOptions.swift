/// How a disk in memory is held: the three designs of the mission's document, to be compared on one workload.
public enum MemoryEngine: String, CaseIterable, Sendable {
  case extent, chain, bytes

  /// One line for help texts.
  public var summary: String {
    switch self {
    case .extent: "contiguous runs of blocks, copy-on-write, holes"
    case .chain: "single blocks of 4 KiB in a chain, copy-on-write, holes"
    case .bytes: "one array of bytes, written in place, no holes to be seen"
    }
  }
}

/// What to open or to make.
public struct StoreOptions: Sendable {
  /// The size of a disk in memory, in bytes: from 1 to 2^63 - 1.
  public var memoryByteCount: UInt64?
  /// How the disk in memory is held.
  public var engine = MemoryEngine.extent

  /// The defaults, which name nothing to open yet.
  public init() {}
}
