import Glibc

/// Repeatable random numbers (SplitMix64): one seed, one sequence.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
  private var state: UInt64

  package init(seed: UInt64) { state = seed }

  package mutating func next() -> UInt64 {
    state &+= 0x9e37_79b9_7f4a_7c15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
    return mixed ^ (mixed >> 31)
  }

  /// `count` bytes, none of them zero, so that they never pass for zeroes.
  package mutating func nonZeroBytes(_ count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 1, count: count)
    bytes.withUnsafeMutableBytes { buffer in
      // Eight at a time; the last few stay 1.
      for offset in stride(from: 0, through: count - 8, by: 8) {
        buffer.storeBytes(of: next() | 0x0101_0101_0101_0101, toByteOffset: offset, as: UInt64.self)
      }
    }
    return bytes
  }
}

/// Where a random test's numbers come from: LACUNA_SEED, else a fresh seed; both are printed.
package struct TestSeed: Sendable, CustomStringConvertible {
  package let value: UInt64

  /// - Parameter test: the name to print beside the seed.
  package init(test: String) {
    if let text = getenv("LACUNA_SEED").map({ String(cString: $0) }), let given = UInt64(text) {
      value = given
    } else {
      value = UInt64.random(in: 0..<(1 << 48))
    }
    print("\(test): LACUNA_SEED=\(value)")
  }

  package var description: String { "LACUNA_SEED=\(value)" }
}

/// A number from the environment, such as a count of steps; `fallback` where it is absent or no number.
package func numberFromEnvironment(_ name: String, else fallback: Int) -> Int {
  getenv(name).flatMap { Int(String(cString: $0)) } ?? fallback
}
