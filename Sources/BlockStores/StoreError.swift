package import Devices

/// Why a store or a file in it could not do what was asked.
public struct StoreError: Error, Sendable, Equatable, CustomStringConvertible {
  /// What to branch on.
  public enum Code: Sendable, Equatable {
    /// No block is free, or the store has reached its limit.
    case outOfSpace
    /// A position lies past the end of the store, or a file would become larger than 2^63 - 1 bytes.
    case outOfRange
    /// A block that is free was freed.
    case notAllocated
    /// The inode holds nothing, or, for the destination of a clone, holds something.
    case wrongInode
    /// Somebody has the inode open, or breaks its sharing.
    case inUse
    /// What the store below keeps is not what this store once wrote there.
    case malformed
    /// The medium below failed, with this error number of the system.
    case deviceFailed(errno: Int32)
  }

  /// What to branch on.
  public var code: Code
  /// The facts, in words.
  public var facts: String

  /// Makes an error.
  public init(_ code: Code, _ facts: String) {
    self.code = code
    self.facts = facts
  }

  /// The error for a failed call on the device below.
  package init(_ error: DeviceError) {
    self.init(error.isLackOfSpace ? .outOfSpace : .deviceFailed(errno: error.errno), "\(error)")
  }

  /// One line of text.
  public var description: String { facts }
}

/// The number that names one file's contents within a store.
public struct Inode: RawRepresentable, Hashable, Sendable, CustomStringConvertible {
  /// The number.
  public var rawValue: UInt64

  /// Names the file `rawValue`.
  public init(rawValue: UInt64) { self.rawValue = rawValue }

  /// The number in decimal.
  public var description: String { "\(rawValue)" }
}
