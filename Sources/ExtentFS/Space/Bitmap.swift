/// A set of positions below `count`, one bit each.
///
/// A value: copies share the words until one of them changes. Positions must lie below `count`.
struct Bitmap: Sendable, Equatable {
  /// Bit i of word w is position 64 * w + i.
  private(set) var words: ContiguousArray<UInt64>
  /// How many positions there are; a multiple of 64.
  var count: Int { words.count * 64 }

  /// No position of `count`, which is rounded up to whole words.
  init(count: Int) { words = ContiguousArray(repeating: 0, count: (count + 63) / 64) }

  /// The positions whose bits are set in `bytes`, the lowest position in the lowest bit of the first byte.
  init(bytes: UnsafeRawBufferPointer) {
    words = ContiguousArray(repeating: 0, count: bytes.count / 8)
    for word in 0..<words.count {
      // Safe: word * 8 + 8 is at most the buffer's length.
      words[word] = UInt64(littleEndian: unsafe bytes.loadUnaligned(fromByteOffset: word * 8, as: UInt64.self))
    }
  }

  /// Writes the bits to `bytes`, which has room for exactly them.
  func copy(to bytes: UnsafeMutableRawBufferPointer) {
    precondition(bytes.count == words.count * 8, "a bitmap of \(count) bits does not fit \(bytes.count) bytes")
    for word in 0..<words.count {
      unsafe bytes.storeBytes(of: words[word].littleEndian, toByteOffset: word * 8, as: UInt64.self)
    }
  }

  /// How many positions are set.
  var setCount: Int { words.reduce(0) { $0 + $1.nonzeroBitCount } }

  func contains(_ position: Int) -> Bool { words[position >> 6] >> UInt64(position & 63) & 1 == 1 }

  /// Whether any position of `range` is set.
  func containsAny(of range: Range<Int>) -> Bool { !all(range) { word, mask in word & mask == 0 } }

  /// Whether every position of `range` is set.
  func containsAll(of range: Range<Int>) -> Bool { all(range) { word, mask in word & mask == mask } }

  /// How many positions of `range` are set.
  func setCount(of range: Range<Int>) -> Int {
    var count = 0
    _ = all(range) { word, mask in
      count += (word & mask).nonzeroBitCount
      return true
    }
    return count
  }

  mutating func insert(_ range: Range<Int>) { change(range) { word, mask in word |= mask } }

  mutating func remove(_ range: Range<Int>) { change(range) { word, mask in word &= ~mask } }

  /// The first position from `start` on that is not set, and before `end`.
  func firstClear(from start: Int, before end: Int) -> Int? { first(start, end) { ~$0 } }

  /// The first position from `start` on that is set, and before `end`.
  func firstSet(from start: Int, before end: Int) -> Int? { first(start, end) { $0 } }

  /// Whether no position is set.
  var isEmpty: Bool { words.allSatisfy { $0 == 0 } }

  /// The positions that are set in both, which have equal counts.
  func intersection(_ other: Bitmap) -> Bitmap { combined(with: other) { $0 & $1 } }

  /// The positions that are set in either; nil is an empty set.
  func union(_ other: Bitmap?) -> Bitmap {
    guard let other else { return self }
    return combined(with: other) { $0 | $1 }
  }

  /// The positions that are set here and not in `other`.
  func subtracting(_ other: Bitmap) -> Bitmap { combined(with: other) { $0 & ~$1 } }

  /// The bits of `range` as a bitmap of their own; `range` begins and ends at multiples of 64.
  func slice(_ range: Range<Int>) -> Bitmap {
    var part = Bitmap(count: 0)
    part.words = ContiguousArray(words[range.lowerBound / 64..<range.upperBound / 64])
    return part
  }

  private func combined(with other: Bitmap, _ combine: (UInt64, UInt64) -> UInt64) -> Bitmap {
    var result = self
    for word in 0..<words.count { result.words[word] = combine(words[word], other.words[word]) }
    return result
  }

  @inline(__always)
  private func first(_ start: Int, _ end: Int, _ wanted: (UInt64) -> UInt64) -> Int? {
    guard start < end else { return nil }
    var word = start >> 6
    var found = wanted(words[word]) & ~Self.mask(below: start & 63)
    while found == 0 {
      word += 1
      guard word << 6 < end else { return nil }
      found = wanted(words[word])
    }
    let position = word << 6 + found.trailingZeroBitCount
    return position < end ? position : nil
  }

  @inline(__always)
  private func all(_ range: Range<Int>, _ holds: (_ word: UInt64, _ mask: UInt64) -> Bool) -> Bool {
    var position = range.lowerBound
    while position < range.upperBound {
      let word = position >> 6
      guard holds(words[word], Self.mask(word, range)) else { return false }
      position = (word + 1) << 6
    }
    return true
  }

  @inline(__always)
  private mutating func change(_ range: Range<Int>, _ body: (_ word: inout UInt64, _ mask: UInt64) -> Void) {
    var position = range.lowerBound
    while position < range.upperBound {
      let word = position >> 6
      body(&words[word], Self.mask(word, range))
      position = (word + 1) << 6
    }
  }

  /// The bits of `word` that belong to `range`, which reaches into it.
  @inline(__always)
  private static func mask(_ word: Int, _ range: Range<Int>) -> UInt64 {
    let start = word << 6
    let below = range.lowerBound > start ? mask(below: range.lowerBound - start) : 0
    let upper = range.upperBound - start >= 64 ? UInt64.max : mask(below: range.upperBound - start)
    return upper & ~below
  }

  /// The lowest `count` bits, fewer than 64.
  @inline(__always)
  private static func mask(below count: Int) -> UInt64 { (1 << UInt64(count)) &- 1 }
}
