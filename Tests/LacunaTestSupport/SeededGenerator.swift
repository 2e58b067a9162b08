/// Repeatable random numbers: one seed, one sequence, on every machine.
///
/// The generator is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): a counter
/// that grows by 2^64 divided by the golden ratio, and a mixing function over it.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  /// A generator whose first numbers are up to `bytes`, so that a fuzzer that changes them changes what happens, and whose
  /// others are those of a seed.
  package init(bytes: [UInt8], seed: UInt64 = 0) {
    state = seed
    script = bytes[...]
  }

  private var script: ArraySlice<UInt8> = []

  /// Whether no bytes are left that numbers could come from.
  package var isAtEndOfBytes: Bool { script.isEmpty }

  package mutating func next() -> UInt64 {
    // The numbers below a bound are made of the highest bits.
    if let first = script.popFirst() { return UInt64(first) << 56 | UInt64(script.popFirst() ?? 0) << 48 }
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }

  /// A number from 0 to `bound` - 1. (The standard library's own way does not promise the same numbers forever.)
  package mutating func number(below bound: Int) -> Int {
    Int(truncatingIfNeeded: next().multipliedFullWidth(by: UInt64(bound)).high)
  }

  /// A number from 0 to `bound` - 1.
  package mutating func number(below bound: UInt64) -> UInt64 { next().multipliedFullWidth(by: bound).high }

  /// True once in `count` times.
  package mutating func oneIn(_ count: Int) -> Bool { number(below: count) == 0 }

  /// A range of at least one and at most `longest` numbers below `bound`.
  package mutating func range(below bound: UInt64, longest: UInt64) -> Range<UInt64> {
    let length = 1 + number(below: min(longest, bound))
    let start = number(below: bound - length + 1)
    return start..<start + length
  }

  /// `count` bytes, none of them zero, so that they never pass for zeroes.
  package mutating func nonZeroBytes(_ count: Int) -> [UInt8] {
    var bytes: [UInt8] = []
    bytes.reserveCapacity(count)
    while bytes.count < count { bytes.append(UInt8(truncatingIfNeeded: next()) | 1) }
    return bytes
  }
}
