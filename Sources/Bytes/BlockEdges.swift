/// The blocks at the ends of a range that it covers only in part: none, one or two.
public struct BlockEdges: Sequence, IteratorProtocol, ExpressibleByArrayLiteral {
  private var head: UInt64?
  private var tail: UInt64?

  /// At most two blocks, in order.
  public init(arrayLiteral elements: UInt64...) {
    precondition(elements.count <= 2, "a range has at most two edges")
    head = elements.first
    tail = elements.count > 1 ? elements.last : nil
  }

  /// The edges of `range`.
  public init(of range: Range<UInt64>, _ blockSize: BlockSize) {
    if blockSize.remainder(of: range.lowerBound) > 0 { head = blockSize.block(at: range.lowerBound) }
    if blockSize.remainder(of: range.upperBound) > 0 {
      let last = blockSize.block(at: range.upperBound)
      tail = last == head ? nil : last
    }
  }

  /// Whether the range covers whole blocks only.
  public var isEmpty: Bool { head == nil && tail == nil }

  /// The next edge.
  public mutating func next() -> UInt64? { head.take() ?? tail.take() }
}
