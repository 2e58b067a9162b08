/// Where a file's blocks are: on the medium, or nowhere because they are known to be zeroes.
public struct BlockTarget: Sendable, Hashable, RunValue {
  // The physical block, or `.max` for reserved zeroes, which so needs no second word in every extent.
  let rawValue: UInt64

  init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Blocks that read as zeroes and are promised space, but take none yet: the mapping of a client's zeroes that may
  /// not become a hole.
  public static var reservedZeroes: BlockTarget { BlockTarget(rawValue: .max) }

  /// Blocks from `block` on. `block` is below 2^63.
  public static func physical(_ block: UInt64) -> BlockTarget { BlockTarget(rawValue: block) }

  /// The first physical block; nil for reserved zeroes.
  public var physicalBlock: UInt64? { rawValue == .max ? nil : rawValue }

  /// Where the block is that comes `count` blocks after the first.
  public func advanced(by count: UInt64) -> BlockTarget {
    rawValue == .max ? self : BlockTarget(rawValue: rawValue + count)
  }
}
