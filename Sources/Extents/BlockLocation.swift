/// Where a block is: on the medium, or nowhere because it is known to be zeroes. Of an extent: where its first block is.
public struct BlockLocation: Sendable, Hashable {
  // The physical block, or one of the two largest numbers, which no block has: so it needs no second word in every extent.
  private let rawValue: UInt64

  private init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Blocks that read as zeroes and have space promised to them, but none yet: the mapping of a client's zeroes that may not become a
  /// hole. File systems call such an extent *unwritten*.
  public static var unwritten: BlockLocation { BlockLocation(rawValue: .max) }

  /// Nothing; reads as zeroes. A map where gaps are holes has no entry for it; one of changes has, which hides what is below.
  public static var hole: BlockLocation { BlockLocation(rawValue: .max - 1) }

  /// Blocks from `block` on. `block` is below 2^63.
  public static func physical(_ block: UInt64) -> BlockLocation { BlockLocation(rawValue: block) }

  /// The first physical block; nil for zeroes of either kind.
  public var physicalBlock: UInt64? { rawValue >= .max - 1 ? nil : rawValue }

  /// What a client finds there.
  public var content: RangeContent {
    if physicalBlock != nil { return .data }
    return self == .hole ? .hole : .unwritten
  }

  /// Where the block is that comes `count` blocks after the first.
  public func advanced(by count: UInt64) -> BlockLocation {
    rawValue >= .max - 1 ? self : BlockLocation(rawValue: rawValue + count)
  }
}

extension BlockLocation: RunValue {}
