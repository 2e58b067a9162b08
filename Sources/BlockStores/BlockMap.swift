public import Extents

/// One file's mapping: its size and, for each of its blocks, where that is.
///
/// `ExtentFile` and `BlockChainFile` publish immutable ones, so that readers need no lock.
public protocol BlockMap: Sendable {
  /// The file's size in bytes.
  var byteCount: UInt64 { get set }

  /// Whether the map can hold `BlockLocation.unwritten`.
  static var holdsUnwritten: Bool { get }

  /// Calls `body` with pieces that cover `blocks` in order, each a hole (nil) or physically contiguous, until `body`
  /// returns false.
  func forEachPiece<Failure: Error>(
    in blocks: Range<UInt64>, _ body: (_ blocks: Range<UInt64>, _ target: BlockLocation?) throws(Failure) -> Bool
  ) throws(Failure)

  /// Makes `blocks` lie at `target` and on from there; holes where it is nil.
  mutating func replace(_ blocks: Range<UInt64>, with target: BlockLocation?)
}

extension BlockMap {
  /// Where `block` is; nil for a hole.
  func target(of block: UInt64) -> BlockLocation? {
    var found: BlockLocation?
    forEachPiece(in: block..<block + 1) { _, target in
      found = target
      return false
    }
    return found
  }
}
