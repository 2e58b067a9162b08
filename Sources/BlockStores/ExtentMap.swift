public import Extents

/// A file's sorted list of extents, and its size. Gaps between extents are holes.
///
/// Copies are cheap, look-up and change are O(log n) (see `RunMap`).
public struct ExtentMap: BlockMap {
  public var byteCount: UInt64
  /// The extents: logical blocks to physical ones.
  package private(set) var runs: RunMap<BlockLocation>

  /// The map of an empty file.
  public init() {
    byteCount = 0
    runs = RunMap()
  }

  public static var holdsUnwritten: Bool { true }

  public func forEachPiece<Failure: Error>(
    in blocks: Range<UInt64>, _ body: (_ blocks: Range<UInt64>, _ target: BlockLocation?) throws(Failure) -> Bool
  ) throws(Failure) {
    try runs.forEachPiece(in: blocks, body)
  }

  public mutating func replace(_ blocks: Range<UInt64>, with target: BlockLocation?) {
    runs.replace(blocks, with: target)
  }
}
