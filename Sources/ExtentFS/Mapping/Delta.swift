package import Extents

/// Where blocks that were changed since the last checkpoint are: on the medium, reserved, or nowhere.
package struct DeltaTarget: RunValue, Hashable {
  // The physical block, or one of the two largest numbers, which no block has.
  private let rawValue: UInt64

  private init(rawValue: UInt64) { self.rawValue = rawValue }

  /// Blocks that were trimmed, or zeroed: whatever the tree below says, they read as zeroes and have no space.
  package static var hole: DeltaTarget { DeltaTarget(rawValue: .max) }

  /// Blocks that read as zeroes and are promised space.
  package static var reservedZeroes: DeltaTarget { DeltaTarget(rawValue: .max - 1) }

  /// Blocks from `block` on. `block` is below 2^63.
  package static func physical(_ block: UInt64) -> DeltaTarget { DeltaTarget(rawValue: block) }

  /// The first physical block; nil for zeroes of either kind.
  package var physicalBlock: UInt64? { rawValue >= .max - 1 ? nil : rawValue }

  package func advanced(by count: UInt64) -> DeltaTarget {
    rawValue >= .max - 1 ? self : DeltaTarget(rawValue: rawValue + count)
  }
}

/// The changes of one volume since a checkpoint: logical blocks to where they are now. Gaps are as the tree below says.
package typealias Delta = RunMap<DeltaTarget>
