internal import Extents

/// A run of logical blocks and where they are, while it is cut into pieces.
private struct Piece {
  var blocks: Range<UInt64>
  var target: BlockLocation?

  /// Takes the first `count` blocks away and returns them.
  mutating func takeFirst(_ count: UInt64) -> Piece {
    let middle = blocks.lowerBound + count
    let first = Piece(blocks: blocks.lowerBound..<middle, target: target)
    blocks = middle..<blocks.upperBound
    target = target?.advanced(by: count)
    return first
  }
}

/// The edits of an extent tree. Each is met from left to right, and cut where a leaf ends or an old extent begins or ends.
struct ExtentEdits<Edits: IteratorProtocol<ExtentEdit>>: TreeEdits {
  private var rest: Edits
  private var current: Piece?
  private var end: UInt64 = 0
  private let old: TreeReader
  private(set) var mappedBlocks: Int64 = 0
  private(set) var reservedBlocks: Int64 = 0
  /// What was left out, and why the first of it was.
  private(set) var leftOut: [ExtentEdit] = []
  private(set) var damage: ExtentFSError?

  init(_ edits: Edits, old: TreeReader) throws(ExtentFSError) {
    rest = edits
    self.old = old
    try advance()
  }

  var nextKey: UInt64? { current?.blocks.lowerBound }

  /// Moves on to the next edit that changes something.
  private mutating func advance() throws(ExtentFSError) {
    current = nil
    while let edit = rest.next() {
      precondition(edit.blocks.lowerBound >= end, "edits of extents must be in order")
      precondition(edit.blocks.upperBound <= ExtentRecord.blockLimit, "an edit reaches beyond every volume")
      end = edit.blocks.upperBound
      if try changesSomething(edit) {
        current = Piece(blocks: edit.blocks, target: edit.target)
        return
      }
    }
  }

  private func changesSomething(_ edit: ExtentEdit) throws(ExtentFSError) -> Bool {
    guard edit.target == nil else { return !edit.blocks.isEmpty }
    var isMapped = false
    do throws(ExtentFSError) {
      try old.forEachExtent(in: edit.blocks) { _ in
        isMapped = true
        return false
      }
    } catch {
      guard error.isUnreadable else { throw error }
      // Nobody can say that it changes nothing.
      return true
    }
    return isMapped
  }

  mutating func apply<Writer>(
    to leaf: Node?, below upper: UInt64?, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    for index in 0..<(leaf?.count ?? 0) {
      guard let extent = leaf?.extent(at: index) else { break }
      var old = Piece(blocks: extent.blocks, target: extent.target)
      while let start = nextKey, start < old.blocks.upperBound {
        if old.blocks.lowerBound < start {
          try builder.append(old.takeFirst(start - old.blocks.lowerBound))
        } else if let new = try takeCurrent(below: min(old.blocks.lowerBound, upper ?? .max)) {
          try insert(new, &builder)
        } else if let new = try takeCurrent(below: old.blocks.upperBound) {
          let count = new.blocks.upperBound - new.blocks.lowerBound
          try replace(old.takeFirst(count), by: new, &builder)
          if old.blocks.isEmpty { break }
        }
      }
      if !old.blocks.isEmpty { try builder.append(old) }
    }
    while let new = try takeCurrent(below: upper ?? .max) { try insert(new, &builder) }
  }

  func replaces(_ keys: Range<UInt64>) -> Bool { false }

  mutating func leaveOut(below upper: UInt64?, since error: ExtentFSError) throws(ExtentFSError) {
    guard error.isUnreadable else { throw error }
    if damage == nil { damage = error }
    while let piece = try takeCurrent(below: upper ?? .max) {
      leftOut.append(ExtentEdit(piece.blocks, piece.target))
    }
  }

  /// Takes the part of the current edit that lies below `bound`; nil where it begins there or behind, or there is none.
  private mutating func takeCurrent(below bound: UInt64) throws(ExtentFSError) -> Piece? {
    guard var piece = current, piece.blocks.lowerBound < bound else { return nil }
    let first = piece.takeFirst(min(piece.blocks.upperBound, bound) - piece.blocks.lowerBound)
    if piece.blocks.isEmpty { try advance() } else { current = piece }
    return first
  }

  private mutating func insert<Writer>(
    _ new: Piece, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    count(new, sign: 1)
    try builder.append(new)
  }

  private mutating func replace<Writer>(
    _ old: Piece, by new: Piece, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    count(old, sign: -1)
    try insert(new, &builder)
    if old.target != new.target, let block = old.target?.physicalBlock {
      try builder.writer.freeData(PhysicalRun(block: block, count: old.blocks.upperBound - old.blocks.lowerBound))
    }
  }

  private mutating func count(_ piece: Piece, sign: Int64) {
    guard let target = piece.target else { return }
    // Fits: logical blocks end at 2^62.
    let count = sign * Int64(piece.blocks.upperBound - piece.blocks.lowerBound)
    if target.physicalBlock == nil { reservedBlocks += count } else { mappedBlocks += count }
  }
}

extension TreeBuilder {
  fileprivate mutating func append(_ piece: Piece) throws(ExtentFSError) {
    guard let target = piece.target else { return }
    try appendExtent(piece.blocks, target)
  }
}

/// The edits of a tree of any other kind.
struct KeyedEdits<Edits: IteratorProtocol<KeyedEdit>>: TreeEdits {
  private var rest: Edits
  private var current: KeyedEdit?
  private let valueByteCount: Int
  private let unreadable: UnreadableNodes

  init(_ edits: Edits, valueByteCount: Int, unreadable: UnreadableNodes) {
    rest = edits
    self.valueByteCount = valueByteCount
    self.unreadable = unreadable
    advance()
  }

  var nextKey: UInt64? { current?.key }

  private mutating func advance() {
    let previous = current?.key
    current = rest.next()
    guard let current else { return }
    if let previous { precondition(current.key > previous, "edits must be in order of their keys") }
    precondition(current.value?.count ?? valueByteCount == valueByteCount, "a value has the wrong length")
  }

  mutating func apply<Writer>(
    to leaf: Node?, below upper: UInt64?, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    for index in 0..<(leaf?.count ?? 0) {
      guard let leaf else { break }
      let key = leaf.key(at: index)
      while let edit = current, edit.key < key { try apply(edit, &builder) }
      if let edit = current, edit.key == key {
        try apply(edit, &builder)
      } else {
        try builder.appendEntry(at: index, of: leaf)
      }
    }
    while let edit = current, upper == nil || edit.key < upper ?? .max { try apply(edit, &builder) }
  }

  func replaces(_ keys: Range<UInt64>) -> Bool {
    if case .replace(let parts) = unreadable { parts.contains(keys) } else { false }
  }

  mutating func leaveOut(below upper: UInt64?, since error: ExtentFSError) throws(ExtentFSError) { throw error }

  private mutating func apply<Writer>(
    _ edit: KeyedEdit, _ builder: inout TreeBuilder<Writer>
  ) throws(ExtentFSError) {
    if let value = edit.value { try builder.append(edit.key, value: unsafe value.span.bytes, toLevel: 0) }
    advance()
  }
}
