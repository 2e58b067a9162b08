/// Where a file's blocks are: on the medium, or nowhere because they are known to be zeroes.
public struct BlockTarget: RunValue, Hashable {
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

  public func advanced(by count: UInt64) -> BlockTarget {
    rawValue == .max ? self : BlockTarget(rawValue: rawValue + count)
  }
}

/// A contiguous run of blocks on the medium.
public struct PhysicalRun: Sendable, Hashable {
  /// The first block.
  public var block: UInt64
  /// How many blocks; at least 1.
  public var count: UInt64

  /// Makes a run.
  public init(block: UInt64, count: UInt64) {
    self.block = block
    self.count = count
  }

  /// The blocks as a range.
  public var blocks: Range<UInt64> { block..<block + count }
}

/// One file's mapping: its size and, for each of its blocks, where that is.
///
/// `ExtentFile` and `BlockChainFile` publish immutable ones, so that readers need no lock.
public protocol BlockMap: Sendable {
  /// The file's size in bytes.
  var byteCount: UInt64 { get set }

  /// Whether the map can hold `BlockTarget.reservedZeroes`.
  static var holdsReservedZeroes: Bool { get }

  /// Calls `body` with pieces that cover `blocks` in order, each a hole (nil) or physically contiguous, until `body`
  /// returns false.
  func forEachPiece<Failure: Error>(
    in blocks: Range<UInt64>, _ body: (_ blocks: Range<UInt64>, _ target: BlockTarget?) throws(Failure) -> Bool
  ) throws(Failure)

  /// Makes `blocks` lie at `target` and on from there; holes where it is nil.
  mutating func replace(_ blocks: Range<UInt64>, with target: BlockTarget?)
}

extension BlockMap {
  /// Where `block` is; nil for a hole.
  func target(of block: UInt64) -> BlockTarget? {
    var found: BlockTarget?
    forEachPiece(in: block..<block + 1) { _, target in
      found = target
      return false
    }
    return found
  }
}

/// A file's sorted list of extents, and its size. Gaps between extents are holes.
///
/// Copies are cheap, look-up and change are O(log n) (see ``RunMap``).
public struct ExtentMap: BlockMap {
  public var byteCount: UInt64
  /// The extents: logical blocks to physical ones.
  public private(set) var runs: RunMap<BlockTarget>

  /// The map of an empty file.
  public init() {
    byteCount = 0
    runs = RunMap()
  }

  public static var holdsReservedZeroes: Bool { true }

  public func forEachPiece<Failure: Error>(
    in blocks: Range<UInt64>, _ body: (_ blocks: Range<UInt64>, _ target: BlockTarget?) throws(Failure) -> Bool
  ) throws(Failure) {
    try runs.forEachPiece(in: blocks, body)
  }

  public mutating func replace(_ blocks: Range<UInt64>, with target: BlockTarget?) {
    runs.replace(blocks, with: target)
  }
}
