/// `store.info`: the store as a whole.
public struct GetStoreInfo: StoreMethod {
  public static let name = "store.info"
  public init() {}
}

/// `store.set`: changes settings of the store.
///
/// Throws `.noSuchVolume`; `.invalidParameter` for a limit of a store on a block device.
public struct SetStore: StoreMethod {
  public static let name = "store.set"
  /// The volume that the empty export name stands for; empty for none; nil to leave it.
  public var defaultVolume: String?
  /// The length in bytes that the store's file does not grow beyond, from now on, whichever process opens it; 0 for none; nil to leave
  /// it. A file that is longer does not become shorter.
  public var limit: UInt64?

  public init(defaultVolume: String? = nil, limit: UInt64? = nil) {
    self.defaultVolume = defaultVolume
    self.limit = limit
  }
}

/// `store.check`: looks for everything that is wrong, and changes nothing. Reports progress. Damage is no error, but a result.
public struct CheckStore: StoreMethod {
  public static let name = "store.check"
  /// Whether also every block of data is read, and its checksum compared.
  @Flag public var data: Bool

  public init(data: Bool = false) { self.data = data }
}

/// `store.stats`: what the store has done since it was opened.
public struct GetStatistics: StoreMethod {
  public static let name = "store.stats"
  public init() {}
}

/// `store.dump`: one block, decoded.
///
/// Throws `.outOfRange` for a block that the device does not have.
public struct DumpBlock: StoreMethod {
  public static let name = "store.dump"
  /// The number of the block on the device: its offset in bytes divided by the size of a block.
  public var block: UInt64

  public init(block: UInt64) { self.block = block }
}

/// `store.deletions`: what deleted volumes have not freed yet.
public struct GetDeletions: StoreMethod {
  public static let name = "store.deletions"
  public init() {}
}

/// `store.trim`: gives the host back what it holds and the store does not use, and what deleted volumes have; whatever else goes on.
/// Reports progress.
///
/// Throws `.notSupported` where the file system or block device takes nothing back.
public struct TrimStore: StoreMethod {
  public static let name = "store.trim"
  public init() {}
}

/// `store.stop`: ends the process that serves the store, without waiting for clients that ask for nothing. What was acknowledged is
/// made durable; requests that have arrived are done and answered, and then their connections end.
///
/// The answer comes before the end. Throws `.notSupported` where the process cannot be ended so, as where a service manager
/// would start it again.
package struct StopServing: StoreMethod {
  package static let name = "store.stop"
  package init() {}

  /// What is about to end.
  package struct Result: Codable, Sendable, Hashable {
    /// The last process to end: the one that keeps the server running, where there is one.
    package var pid: Int32
    /// Why what was acknowledged could not be made durable; nil where it was.
    package var flushFailure: String?

    package init(pid: Int32, flushFailure: String?) {
      self.pid = pid
      self.flushFailure = flushFailure
    }
  }
}
